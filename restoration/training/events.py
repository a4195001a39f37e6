"""After which steps of a training run something happens besides the step."""

import dataclasses

from restoration.training import train_config


@dataclasses.dataclass(frozen=True)
class Events:
    """After which steps to log, evaluate and save; the last step does all.

    Attributes:
      options: of the run.
      steps_per_epoch: batches an epoch.
      total_steps: of the run.
    """

    options: train_config.TrainConfig
    steps_per_epoch: int
    total_steps: int

    @property
    def _log_every(self) -> int:
        return self.options.log_every or self.steps_per_epoch

    @property
    def _evaluate_every(self) -> int:
        return self.options.evaluate_every * self.steps_per_epoch

    @property
    def _save_every(self) -> int:
        return self.options.checkpoint_every or self._evaluate_every

    def _due(self, done: int, interval: int) -> bool:
        return done % interval == 0 or done == self.total_steps

    def logs(self, done: int) -> bool:
        """Returns whether a line is logged after so many steps."""
        return self._due(done, self._log_every)

    def evaluates(self, done: int) -> bool:
        """Returns whether the validation pairs are measured then."""
        return self._due(done, self._evaluate_every)

    def saves(self, done: int) -> bool:
        """Returns whether a checkpoint is saved then."""
        return self._due(done, self._save_every)

    def any(self, done: int) -> bool:
        """Returns whether anything of these happens then."""
        return self.logs(done) or self.evaluates(done) or self.saves(done)

    def next_after(self, done: int) -> int:
        """Returns the next step with an event."""
        intervals = (self._log_every, self._evaluate_every, self._save_every)
        coming = ((done // interval + 1) * interval for interval in intervals)
        return min(self.total_steps, *coming)
