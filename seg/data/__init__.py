"""From image files to patches: cases, splits, fingerprint, plan, cache, sampling, augmentation."""
