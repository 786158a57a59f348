"""How a service is set up: where it listens, what one request may cost, where it writes."""

import ipaddress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from dracones.images.limits import Limits

TOKEN_VARIABLE = "DRACONES_TOKEN"


class Settings(BaseModel):
    """Options of the service; everything that is held is bounded by one of them.

    Example:
        >>> Settings().is_local, Settings(host="0.0.0.0", token="long secret").is_local
        (True, False)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on; any but the loopback needs a token")
    port: int = Field(default=8000, ge=0, le=65535, description="0: a free one")
    token: SecretStr | None = Field(default=None, description="what a request has to bear")
    deadline: float = Field(default=2.0, gt=0, description="seconds within which a request is answered or refused")
    max_requests: int = Field(default=64, ge=1, description="requests in the house at most, reading included")
    max_images: int = Field(default=32, ge=1, description="images of one request")
    max_body_bytes: int = Field(default=2**26, ge=1, description="size of one request")
    max_held_bytes: int = Field(default=2**28, ge=1, description="bodies of all requests in the house together")
    max_decoded_bytes: int = Field(default=2**29, ge=1, description="all decoded images in the house together")
    max_batch: int = Field(default=32, ge=1, description="images scored together")
    max_wait: float = Field(default=0.005, ge=0, description="seconds a batch waits for bodies being read")
    limits: Limits = Field(
        default=Limits(max_pixels=2**25, max_file_bytes=2**25), description="what one image may cost"
    )
    reload_every: float = Field(default=2.0, ge=0, description="seconds between looks at the model files; 0: never")
    drain: float = Field(default=1.0, ge=0, description="seconds between SIGTERM and the closed door, while not ready")
    audit: Path | None = Field(default=None, description="JSONL file of what was said of which image")
    audit_bytes: int = Field(default=2**26, ge=2**10, description="size at which the audit file is rotated")
    audit_files: int = Field(default=10, ge=1, description="rotated audit files that are kept")
    audit_images: Path | None = Field(default=None, description="folder for the images themselves")
    confirmed: Path | None = Field(default=None, description="folder for images that a person called good")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _guarded(self) -> "Settings":
        if self.token is not None and len(self.token.get_secret_value()) < 8:
            raise ValueError(f"the token in {TOKEN_VARIABLE} has fewer than 8 characters; name a longer one")
        if self.token is None and not self.is_local:
            raise ValueError(
                f"listening on {self.host} lets others in: set a token in the environment ({TOKEN_VARIABLE}=...), or "
                "leave --host out to be reached from this machine alone"
            )
        if self.audit_images is not None and self.audit is None:
            raise ValueError("images are kept beside an audit log; name --audit FILE too")
        return self
