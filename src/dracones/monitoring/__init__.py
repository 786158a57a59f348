"""Whether images have changed since a detector was calibrated, with a bound on false alarms."""

from dracones.monitoring.monitor import Monitor
from dracones.monitoring.wager import KINDS, Wager, bets

__all__ = ["KINDS", "Monitor", "Wager", "bets"]
