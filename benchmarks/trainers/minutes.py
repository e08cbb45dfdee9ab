"""nnU-Net's own trainer, for so many minutes: run by benchmarks/nnunet.py in an environment that has nnunetv2."""

import os
from time import perf_counter

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerMinutes(nnUNetTrainer):  # noqa: N801, the name by which nnU-Net looks for it
    """Its rate falls as in nnU-Net, (1 - share done) to the power 0.9, over ``NNUNET_MINUTES`` instead of epochs."""

    def run_training(self) -> None:
        """Steps until the time is over; its own validation while it trains is left out, for it chooses nothing here."""
        self.on_train_start()
        self.network.train()
        seconds, begin, steps = 60 * float(os.environ["NNUNET_MINUTES"]), perf_counter(), 0
        while (done := (perf_counter() - begin) / seconds) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - done) ** 0.9
            self.train_step(next(self.dataloader_train))
            steps += 1
        self.print_to_log_file(f"{steps} steps in {perf_counter() - begin:.0f} s")
        self.on_train_end()
