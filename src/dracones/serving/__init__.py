"""A detector that answers over HTTP: `dracones serve MODEL`, and the same from Python.

FastAPI, uvicorn and prometheus-client (the extra ``serve``) carry it; what is written here is the batcher, the intake
and the page. It adds no arithmetic: images are scored by `Detector.iterate` or `ExportedDetector.iterate`.
"""

from typing import TYPE_CHECKING, Any

from dracones.serving.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Settings", "serve"]


def serve(models: "dict[str, Path]", settings: Settings | None = None, **more: Any) -> None:
    """Serve model files by name until SIGTERM or Ctrl-C; see `dracones.serving.server.serve`.

    Raises:
        ImportError: the extra ``serve`` is not installed.
    """
    try:
        from dracones.serving import server
    except ImportError as error:
        raise ImportError(
            f"serving needs {error.name}, which is not installed: pip install 'dracones[serve]'"
        ) from error
    server.serve(models, settings or Settings(), **more)
