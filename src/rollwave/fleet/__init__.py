"""Simulates thousands of devices over a few connections, with faults that are derived from a seed."""

from rollwave.fleet.faults import Fault, FaultRates, Stage
from rollwave.fleet.population import FleetPlan
from rollwave.fleet.simulation import Fleet
from rollwave.fleet.tally import FleetTally

__all__ = ["Fault", "FaultRates", "Fleet", "FleetPlan", "FleetTally", "Stage"]
