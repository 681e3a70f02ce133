"""How long and how carefully to measure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """``seconds`` of measuring a row; ``smoke`` takes tiny shapes and one round, to see that everything runs."""

    seconds: float = 15.0
    smoke: bool = False
    seed: int = 0

    @property
    def rounds(self) -> tuple[int, int]:
        """The least and the most rounds of a row, whatever its time budget says."""
        return (1, 1) if self.smoke else (5, 1001)

    @property
    def untimed(self) -> str:
        """Why no time of this run is judged, or nothing."""
        return "smoke run" if self.smoke else ""

    @property
    def sample_seconds(self) -> float:
        """A sample calls its contender until it lasts this long: the clock and the scheduler are coarse."""
        return 0.0 if self.smoke else 0.005
