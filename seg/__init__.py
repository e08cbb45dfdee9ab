"""Medical image segmentation studies: Hydra composes a run, MONAI and PyTorch train it, MLflow records it."""
