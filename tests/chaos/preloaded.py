"""Imports everything that a worker and a server import, once. A fork of this process starts within milliseconds."""

import rollwave.api.ops
import rollwave.api.server
import rollwave.cli.serve
import rollwave.console.app
import rollwave.engine.worker.worker
import rollwave.store.health
import rollwave.store.migrate
import tests.chaos.viewers
import tests.chaos.workers

__all__ = ["rollwave", "tests"]
