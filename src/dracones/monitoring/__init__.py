"""Whether images have changed since a detector was calibrated, with a bound on false alarms."""

from dracones.monitoring.monitor import Monitor
from dracones.monitoring.summary import summary
from dracones.monitoring.tables import Watched, rows_of, take, watch
from dracones.monitoring.wager import KINDS, Wager, bets

__all__ = ["KINDS", "Monitor", "Wager", "Watched", "bets", "rows_of", "summary", "take", "watch"]
