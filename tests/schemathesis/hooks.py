"""What schemathesis can't know of itself: how to be an admin for as long as the run takes, and what is only in the
state of things. No operation is left out and no check is turned off.

- Every case is sent with a token that is good: one that the case before has revoked is replaced by a new login. Those
  operations that end or change the session itself get one of their own.
- What would take the admin's account away (its name, password, status, roles) is done to another account.
- Where the document can't say what is right, because only the server knows, a valid case gets the right thing: a cursor
  that was given out, the current password, the code of the device, the id of an account that is there.
"""

import base64
import hashlib
import hmac
import itertools
import json
import os
import struct
import time

import requests
import schemathesis

DEV = json.loads(os.environ["MCIAS_DEV"])

http = requests.Session()
http.verify, http.trust_env = DEV["ca_file"], False
numbers = itertools.count()


def send(method, path, token=None, body=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return http.request(method, DEV["url"] + path, headers=headers, json=body)


class Account:
    """Somebody with a password, and their session."""

    def __init__(self, username, password):
        self.username, self.password, self.token, self.secret = username, password, None, None

    def session(self):
        """A good token for MCIAS itself."""
        if self.token is None or not send("GET", "/v1/auth/me", self.token).ok:
            answer = send("POST", "/v1/auth/login", body={"username": self.username, "password": self.password})
            answer.raise_for_status()
            self.token = answer.json()["token"]
        return self.token

    def exchanged(self):
        """One more token for MCIAS itself."""
        issuer = send("GET", "/v1/auth/me", self.session()).json()["audience"]
        return send("POST", "/v1/auth/token", self.session(), {"audience": issuer}).json()["token"]

    def id(self):
        return send("GET", "/v1/auth/me", self.session()).json()["id"]


admin = Account(DEV["admin_username"], DEV["admin_password"])
ADMIN_ID = admin.id()


def new_account(account_type):
    """A new account's name, password and id."""
    username, password = f"stand-in-{next(numbers)}", "a walrus drinks cold tea"
    body = {"username": username, "account_type": account_type}
    if account_type == "human":
        body["password"] = password
    answer = send("POST", "/v1/accounts", admin.session(), body)
    answer.raise_for_status()
    return username, password, answer.json()["id"]


def person():
    """Somebody whose password and codes may change; another one where too much has happened to the last."""
    try:
        person.is_now.session()
    except (AttributeError, requests.HTTPError):
        person.is_now = Account(*new_account("human")[:2])
    return person.is_now


def code(secret):
    """RFC 6238."""
    step = struct.pack(">Q", int(time.time()) // 30)
    digest = hmac.new(base64.b32decode(secret), step, hashlib.sha1).digest()
    at = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


def name_of(case):
    return case.operation.definition.raw["operationId"]


OF_ONESELF = {"ChangePassword", "EnrollTotp", "ConfirmTotp"}
ENDING = {"Logout", "RenewToken"}
TAKING_AWAY = {"UpdateAccount", "DeleteAccount", "SetPassword", "SetRoles", "RevokeRole"}


@schemathesis.auth(refresh_interval=None)
class Bearer:
    def get(self, case, context):
        name = name_of(case)
        if name in OF_ONESELF:
            return person().session()
        return admin.exchanged() if name in ENDING else admin.session()

    def set(self, case, data, context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.hook
def before_call(context, case, kwargs):
    name = name_of(case)
    if name in TAKING_AWAY and case.path_parameters.get("id") == ADMIN_ID:
        case.path_parameters["id"] = new_account("human")[2]
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "role" in (case.path_parameters or {}):
        # A case that is changed here is looked at again, and what was encoded for the path isn't taken for a role.
        case.path_parameters["role"] = case.path_parameters["role"].replace("%3A", ":")
    body = case.body if isinstance(case.body, dict) else {}
    if case.query and "cursor" in case.query:
        case.query["cursor"] = cursor(case)
    if name == "ChangePassword":
        body["current_password"] = person().password
    elif name == "EnrollTotp":
        body["password"] = person().password
    elif name == "ConfirmTotp" and person().secret:
        body["code"] = code(person().secret)
    elif next(numbers) % 2:
        # Every other time: somebody who isn't there is worth a try, too.
        if name == "Login":
            body.update(username=person().username, password=person().password)
        elif name == "IssueServiceToken":
            body["account_id"] = new_account("system")[2]
        elif name == "RemoveTotp":
            body["account_id"] = person().id()
        elif "id" in (case.path_parameters or {}):
            case.path_parameters["id"] = new_account("system" if "PGCreds" in name else "human")[2]
        elif name == "RevokeToken":
            payload = admin.exchanged().split(".")[1]
            case.path_parameters["jti"] = json.loads(base64.urlsafe_b64decode(payload + "=="))["jti"]
    if name in ("GetPGCreds", "DeletePGCreds"):
        # An account that was just made has none, which is a 404 of its own; for one that isn't there this does nothing.
        pgcreds = {"host": "db", "port": 5432, "database": "db", "username": "db", "password": "db"}
        send("PUT", f"/v1/accounts/{case.path_parameters['id']}/pgcreds", admin.session(), pgcreds)


def cursor(case):
    """One that the server gave."""
    path = case.operation.path.replace("{id}", ADMIN_ID)
    admin.exchanged()
    link = send("GET", f"{path}?limit=1", admin.session()).links["next"]["url"]
    return link.rsplit("cursor=", 1)[1]


@schemathesis.hook
def after_call(context, case, response):
    name = name_of(case)
    if name == "ChangePassword" and response.status_code == 204:
        person.is_now.password = case.body["new_password"]
    elif name == "EnrollTotp" and response.status_code == 200:
        person.is_now.secret = response.json()["secret"]
    elif name == "ConfirmTotp" and response.status_code == 204:
        # Off again, so that the next login needs no code.
        person.is_now.secret = None
        me = send("GET", "/v1/auth/me", person.is_now.token).json()["id"]
        send("DELETE", f"/v1/accounts/{me}/totp", admin.session())


@schemathesis.hook
def filter_body(context, body):
    """The document can only say characters where the server counts bytes."""
    if not isinstance(body, dict):
        return True
    longest = {"host": 253, "database": 63, "username": 128, "password": 1024, "new_password": 1024}
    return all(not isinstance(body.get(name), str) or len(body[name].encode()) <= bytes_ or len(body[name]) > bytes_
               for name, bytes_ in longest.items())
