"""The API of the reference control plane: `uvicorn app.main:app`.

    POST /auth/login      {"username", "password"}  -> {"token", "user_id", "role"}
    POST /train           {"config": {…}}           -> {"task_id"}
    GET  /task/{task_id}                            -> {"task_id", "status", "result" or "error"}
    GET  /healthz                                   -> {"status": "ok"}

`/train` and `/task` need `Authorization: Bearer TOKEN`, else they answer 401. A caller who is not
an admin reads only his own tasks, else 403. A task that waits in its queue has no owner that
anybody could look up, and Celery says PENDING for ids that never were: so PENDING without a stored
state is answered to every caller, and tells him nothing. What has a state but no owner is the
admin's. 503 means that the queue or the results cannot be reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from celery import states
from celery.result import AsyncResult
from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from kombu.exceptions import OperationalError
from pydantic import BaseModel, Field, SecretStr
from redis.exceptions import RedisError

from app import auth
from app.auth import Identity
from app.celery_app import celery_app
from app.tasks.training import train_lora
from petiole.exceptions import PetioleError

auth.secret()  # Without it no request could be answered: refuse to start.

app = FastAPI(title="LoRA training")
bearer = HTTPBearer(auto_error=False)


class Login(BaseModel):
    """What a user logs in with."""

    username: str = Field(min_length=1, max_length=253)
    password: SecretStr


class Session(BaseModel):
    """What he gets for it."""

    token: str
    user_id: str
    role: str


class TrainRequest(BaseModel):
    """A training to start; the task checks the values."""

    config: dict[str, Any]


class Submitted(BaseModel):
    """A training that was started."""

    task_id: str


def current_identity(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Identity:
    """Return who sent the request; 401 without a valid token."""
    try:
        if credentials is None:
            raise auth.AuthenticationError("a bearer token is required")
        return auth.verify(credentials.credentials)
    except auth.AuthenticationError as error:
        raise _unauthorized(error) from None


Caller = Annotated[Identity, Depends(current_identity)]


@app.exception_handler(RequestValidationError)
async def on_invalid_request(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer 422 without the input, which may hold a password."""
    problems = [{key: item[key] for key in ("type", "loc", "msg")} for item in error.errors()]
    return JSONResponse({"detail": problems}, status_code=422)


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@app.post("/auth/login")
def log_in(login: Login) -> Session:
    """Exchange a user's name and password for a token."""
    try:
        identity = auth.log_in(login.username, login.password.get_secret_value())
    except auth.AuthenticationError as error:
        raise _unauthorized(error) from None
    return Session(token=auth.issue(identity), user_id=identity.user_id, role=identity.role)


@app.post("/train")
def train(request: TrainRequest, caller: Caller) -> Submitted:
    """Start a training in the caller's tenant, in his name."""
    metadata = request.config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise HTTPException(422, "config.metadata must be an object")
    config = {
        **request.config,
        "metadata": {**metadata, "namespace": caller.tenant},
        "user_id": caller.user_id,
    }
    try:
        return Submitted(task_id=train_lora.delay(config=config).id)
    except (OperationalError, RedisError, RuntimeError):
        # Celery subscribes to the result before it sends, and says RuntimeError when it cannot.
        raise HTTPException(503, "the task queue cannot be reached") from None


@app.get("/task/{task_id}")
def task(task_id: Annotated[str, Path(max_length=255)], caller: Caller) -> dict[str, Any]:
    """Say how a training is doing, and how it ended."""
    try:
        meta = AsyncResult(task_id, app=celery_app).backend.get_task_meta(task_id)
    except (OperationalError, RedisError):
        raise HTTPException(503, "the results cannot be reached") from None
    status, result = meta["status"], meta.get("result")
    is_unknown = status == states.PENDING and meta.get("kwargs") is None
    if not (caller.is_admin or is_unknown or _owner(meta) == caller.user_id):
        raise HTTPException(403, "the task belongs to another user")
    answer: dict[str, Any] = {"task_id": task_id, "status": status}
    if status == states.SUCCESS:
        answer["result"] = result
    elif isinstance(result, BaseException):
        answer["error"] = _error(result)
    return answer


def _owner(meta: Mapping[str, Any]) -> object:
    """Return the `user_id` of a stored state: of the result, or of the arguments until then."""
    holder = meta.get("result" if meta["status"] == states.SUCCESS else "kwargs")
    for name in ("config", "user_id"):
        holder = holder.get(name) if isinstance(holder, dict) else None
    return holder


def _error(error: BaseException) -> dict[str, Any]:
    """Return what a user may know of a failure: what it is, not where in the code."""
    answer: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, PetioleError):
        answer["details"] = error.details
    return answer


def _unauthorized(error: auth.AuthenticationError) -> HTTPException:
    return HTTPException(401, str(error), headers={"WWW-Authenticate": "Bearer"})
