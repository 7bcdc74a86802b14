"""What the loopback Hub answers to uploads and downloads, and about collections."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml
from loopback_api import API, GIT, REPO, HubApi, Request, Response, as_json, route
from loopback_store import HubError, StoredFile, check_path, is_large

# uploads


@route("POST", "/api/validate-yaml")
def validate_yaml(api: HubApi, request: Request) -> Response:
    match = re.match(r"---\n(.*?)\n---\n", request.json()["content"], re.DOTALL)
    if match is None:
        return as_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        errors = card_errors(yaml.safe_load(match.group(1)))
    except yaml.YAMLError as error:
        errors = [f"YAML: {error}"]
    content = {"errors": [{"message": message} for message in errors], "warnings": []}
    return as_json(content, 400 if errors else 200)


def card_errors(metadata: Any) -> list[str]:
    """What is wrong with the metadata of a card."""
    if not isinstance(metadata, dict):
        return ["the metadata is no mapping"]
    errors = [f'"{key}" must be a string' for key in ("license", "library_name") if not _is(metadata.get(key), str)]
    for key in ("tags", "language", "datasets", "metrics"):
        value = metadata.get(key)
        if not _is(value, str) and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            errors.append(f'"{key}" must be an array of strings')
    for number, model in enumerate(metadata.get("model-index") or []):
        for result in model.get("results", [{}]):
            given = {**result.get("task", {}), **{f"dataset {k}": v for k, v in result.get("dataset", {}).items()}}
            missing = [key for key in ("type", "dataset type", "dataset name") if not given.get(key)]
            missing += ["metrics"] if not all("value" in m for m in result.get("metrics") or [{}]) else []
            errors += [f'"model-index[{number}]" lacks {key}' for key in missing]
    return errors


def _is(value: Any, kind: type) -> bool:
    return value is None or isinstance(value, kind)


@route("POST", rf"{API}/preupload/(?P<revision>[^/]+)")
def preupload(api: HubApi, request: Request, kind: str, id: str, revision: str) -> Response:
    known = api.writable(kind, id, request).resolve(revision).tree
    answers = []
    for file in request.json()["files"]:
        check_path(file["path"])
        large = is_large(file["path"], base64.b64decode(file["sample"]), file["size"])
        answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if file["path"] in known:
            stored = known[file["path"]]
            answer["oid"] = stored.sha256 if stored.lfs else stored.blob_id
        answers.append(answer)
    return as_json({"files": answers})


@route("POST", rf"{GIT}\.git/info/lfs/objects/batch")
def lfs_batch(api: HubApi, request: Request, kind: str, id: str) -> Response:
    repo = api.writable(kind, id, request)
    base = f"{api.hub_url}/{'' if kind == 'model' else kind + 's/'}{id}.git/info/lfs"
    answers = []
    for wanted in request.json()["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        answer: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in repo.objects:
            upload: dict[str, Any] = {"href": f"{api.blob_url}/upload/{oid}"}
            if api.multipart_bytes and size > api.multipart_bytes:
                count = math.ceil(size / api.multipart_bytes)
                numbered = {f"{n:05}": f"{api.blob_url}/part/{oid}/{n}" for n in range(1, count + 1)}
                upload = {
                    "href": f"{base}/complete",
                    "header": {"chunk_size": str(api.multipart_bytes), **numbered},
                }
            answer["actions"] = {"upload": upload, "verify": {"href": f"{base}/verify"}}
        answers.append(answer)
    return as_json({"transfer": "basic", "objects": answers})


@route("POST", rf"{GIT}\.git/info/lfs/complete")
def lfs_complete(api: HubApi, request: Request, kind: str, id: str) -> Response:
    wanted = request.json()
    data = b"".join(api.store.parts.pop((wanted["oid"], part["partNumber"])) for part in wanted["parts"])
    _keep(api, wanted["oid"], data)
    return as_json({})


@route("POST", rf"{GIT}\.git/info/lfs/verify")
def lfs_verify(api: HubApi, request: Request, kind: str, id: str) -> Response:
    repo, wanted = api.writable(kind, id, request), request.json()
    if len(api.store.objects.get(wanted["oid"], b"")) != wanted["size"]:
        raise HubError(404, f"object {wanted['oid']} was not uploaded whole")
    repo.objects.add(wanted["oid"])
    return as_json({})


def _keep(api: HubApi, oid: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != oid:
        raise HubError(400, f"the content does not have the checksum {oid}")
    api.store.objects[oid] = data


@route("POST", rf"{API}/commit/(?P<revision>[^/]+)")
def commit(api: HubApi, request: Request, kind: str, id: str, revision: str) -> Response:
    repo = api.writable(kind, id, request)
    header: dict[str, Any] = {}
    changes: dict[str, StoredFile] = {}
    deleted: list[str] = []
    for line in request.body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            header = value
        elif item["key"] == "file":
            changes[value["path"]] = StoredFile(base64.b64decode(value["content"]), False)
        elif item["key"] == "lfsFile":
            if value["oid"] not in repo.objects:
                raise HubError(400, f"LFS object {value['oid']} of {value['path']} is not stored")
            changes[value["path"]] = StoredFile(api.store.objects[value["oid"]], True)
        else:
            deleted.append(value["path"].rstrip("/") + ("/" if item["key"] == "deletedFolder" else ""))
    assert request.account is not None
    done = api.store.commit(
        repo,
        revision,
        header["summary"],
        changes,
        deleted,
        header.get("description", ""),
        request.account.name,
        header.get("parentCommit"),
    )
    return as_json({"success": True, "commitOid": done.oid, "commitUrl": f"{api.hub_url}/{id}/commit/{done.oid}"})


# downloads


@route("GET", rf"{GIT}/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(api: HubApi, request: Request, kind: str, id: str, revision: str, path: str) -> Response:
    found = api.readable(kind, id, request).resolve(revision)
    stored = found.tree.get(path)
    headers = {"X-Repo-Commit": found.oid, "Accept-Ranges": "bytes"}
    if stored is None:
        answer = as_json({"error": "Entry not found"}, 404)
        answer.headers |= {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return answer
    if not stored.lfs:
        return Response(200, stored.data, {**headers, "ETag": f'"{stored.blob_id}"', "Content-Type": "text/plain"})
    size = str(len(stored.data))
    headers |= {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": size, "ETag": f'"{stored.sha256}"'}
    return Response(302, b"", {**headers, "Location": f"{api.blob_url}/blob/{stored.sha256}?commit={found.oid}"})


# the second port: objects themselves


@route("GET", r"/blob/(?P<oid>\w+)")
def blob(api: HubApi, request: Request, oid: str) -> Response:
    if oid not in api.store.objects:
        raise HubError(404, f"no object {oid}")
    headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes", "X-Repo-Commit": request.query.get("commit", [""])[0]}
    return Response(200, api.store.objects[oid], headers)


@route("PUT", r"/upload/(?P<oid>\w+)")
def upload(api: HubApi, request: Request, oid: str) -> Response:
    _keep(api, oid, request.body)
    return Response()


@route("PUT", r"/part/(?P<oid>\w+)/(?P<number>\d+)")
def part(api: HubApi, request: Request, oid: str, number: str) -> Response:
    api.store.parts[oid, int(number)] = request.body
    return Response(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


# collections


@route("GET", "/api/collections")
def list_collections(api: HubApi, request: Request) -> Response:
    owners = request.query.get("owner")
    shown = [
        _shown(found) for found in api.store.collections.values() if not owners or found["owner"]["name"] in owners
    ]
    return as_json(shown)


@route("POST", "/api/collections")
def create_collection(api: HubApi, request: Request) -> Response:
    wanted = request.json()
    if request.account is None or not request.account.may_write(wanted["namespace"]):
        raise HubError(403, f"You may not create collections in {wanted['namespace']}.")
    name = re.sub(r"[^a-z0-9]+", "-", wanted["title"].lower()).strip("-")
    slug = f"{wanted['namespace']}/{name}-{hashlib.sha1(name.encode()).hexdigest()[:24]}"
    if slug in api.store.collections:
        raise HubError(409, "This collection exists already", slug=slug)
    api.store.collections[slug] = {
        "slug": slug,
        "title": wanted["title"],
        "description": wanted.get("description"),
        "owner": {"name": wanted["namespace"]},
        "private": wanted.get("private", False),
        "items": [],
    }
    return as_json(_shown(api.store.collections[slug]))


@route("GET", rf"/api/collections/{REPO}")
def get_collection(api: HubApi, request: Request, id: str) -> Response:
    return as_json(_shown(_collection(api, id, request)))


@route("POST", rf"/api/collections/{REPO}/items")
def add_item(api: HubApi, request: Request, id: str) -> Response:
    found, wanted = _collection(api, id, request), request.json()
    if request.account is None or not request.account.may_write(found["owner"]["name"]):
        raise HubError(403, f"You may not change the collection {id}.")
    item = wanted["item"]
    api.store.repo(item["type"], item["id"], request.account)
    if any(known["id"] == item["id"] and known["type"] == item["type"] for known in found["items"]):
        raise HubError(409, "This item is in the collection already")
    found["items"].append({**item, "note": wanted.get("note")})
    return as_json(_shown(found))


def _collection(api: HubApi, slug: str, request: Request) -> dict[str, Any]:
    found = api.store.collections.get(slug)
    owner = found["owner"]["name"] if found else ""
    if found is None or (found["private"] and not (request.account and request.account.may_see(owner))):
        raise HubError(404, "Collection not found")
    return found


def _shown(found: Mapping[str, Any]) -> dict[str, Any]:
    items = [
        {
            "_id": hashlib.sha1(f"{item['type']} {item['id']}".encode()).hexdigest()[:24],
            "id": item["id"],
            "type": item["type"],
            "position": number,
            "note": {"text": item["note"]} if item.get("note") else None,
        }
        for number, item in enumerate(found["items"])
    ]
    more = {"items": items, "lastUpdated": "2026-01-01T00:00:00.000Z", "position": 0, "theme": "orange", "upvotes": 0}
    return {**found, **more}
