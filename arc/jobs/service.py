"""Jobs as one part of the server: builds what belongs together and starts it in order.

Jobs(db, config, data_dir) -> .coordinator .reader .redactor(job) -> start(), stop()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.jobs.redaction import Redactor

if TYPE_CHECKING:
    from arc.config import Config
    from arc.jobs.coordinator import Coordinator
    from arc.jobs.queries import JobReader
    from arc.jobs.records import Job


class Jobs:
    coordinator: Coordinator
    reader: JobReader

    def __init__(self, config: Config) -> None:
        self._config = config

    def redactor(self, job: Job) -> Redactor:
        """Hides the secrets of a job in what is shown of it, as [jobs] redact and redact_patterns say."""
        options = self._config.section("jobs")
        return Redactor(job.secrets, options["redact_patterns"], enabled=options["redact"])
