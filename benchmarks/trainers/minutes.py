"""nnU-Net's own trainer, for so many minutes of one processor: run by benchmarks/nnunet.py where nnunetv2 is."""

import os
from time import process_time

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerMinutes(nnUNetTrainer):  # noqa: N801, the name by which nnU-Net looks for it
    """Its rate falls as in nnU-Net, (1 - share done) to the power 0.9, over ``NNUNET_MINUTES`` instead of epochs."""

    def run_training(self) -> None:
        """Steps until the time is over; its own validation while it trains is left out, for it chooses nothing here."""
        torch.set_num_threads(1)
        self.on_train_start()
        self.network.train()
        seconds, begin, steps = 60 * float(os.environ["NNUNET_MINUTES"]), process_time(), 0
        while (done := (process_time() - begin) / seconds) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - done) ** 0.9
            self.train_step(next(self.dataloader_train))
            steps += 1
        self.print_to_log_file(f"{steps} steps in {process_time() - begin:.0f} s")
        self.on_train_end()
