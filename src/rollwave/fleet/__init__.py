"""Simulated devices by the thousand, over a few connections, with faults that a seed decides."""

from rollwave.fleet.faults import Fault, FaultRates, Stage
from rollwave.fleet.population import FleetPlan
from rollwave.fleet.simulation import Fleet
from rollwave.fleet.tally import FleetTally

__all__ = ["Fault", "FaultRates", "Fleet", "FleetPlan", "FleetTally", "Stage"]
