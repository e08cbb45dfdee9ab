"""What comes after training: a trained network, ready to use."""

from seg.deploy.predictor import Prediction, Predictor, predict_together

__all__ = ["Prediction", "Predictor", "predict_together"]
