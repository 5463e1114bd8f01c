// A reader of mpacks, made from what docs/mpack-format.md says and from nothing else.
//
//     node mpack_reader.mjs [--verify] FILE
//
// prints a pack as JSON, byte strings as {"$base64": ...}. A pack that must be refused is: one line on stderr, exit
// code 1. With --verify, so is one with an entity that does not hash to its id. Needs Node 22.15 or newer, for its zstd.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { zstdDecompressSync } from "node:zlib";

const MAGIC = Buffer.from("8d4d504b310d0a1a", "hex");
const END = Buffer.from("1a4d504b454e440a", "hex");
const BLOBS = 1;
const DIRECTORY = 2;
const OUTSIDE = 3;
const SNAPSHOTS = 4;
const COMMITS = 5;
const OPTIONAL = 128;
const FIELDS = ["commit_id", "parent_ids", "snapshot_id", "branch", "message", "author", "committed_at"];

// The format leaves these to the reader. This one holds a whole pack in memory.
const MAX_TABLE = 1 << 24;
const MAX_RAW = 1 << 30;
const MAX_ENTRIES = 10_000_000;
const MAX_FURTHER_DEPTH = 32;
// This one is the format's: what is in the table, which is a map itself.
const MAX_TABLE_DEPTH = 7;

export class Refused extends Error {}

function must(holds, otherwise) {
  if (!holds) throw new Refused(otherwise);
}

// The default for `ignoreBOM` would swallow the first character of a text that begins with U+FEFF.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Pulls msgpack values out of bytes. An element takes a byte at least, so no length is believed beyond what is left. */
class Unpacker {
  constructor(bytes, where) {
    this.bytes = bytes;
    this.where = where;
    this.at = 0;
  }

  take(length) {
    must(length <= this.bytes.length - this.at, `${this.where}: ends too early`);
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  uint(size) {
    return size === 8 ? this.take(8).readBigUInt64BE() : this.take(size).readUIntBE(0, size);
  }

  end() {
    must(this.at === this.bytes.length, `${this.where}: has more bytes than it should`);
  }

  /** The length of what begins here, which must be of the kind that these first bytes say. */
  header(kind, fix, mask, sizes) {
    const first = this.uint(1);
    if (mask && (first & ~mask & 0xff) === fix) return first & mask;
    const size = sizes[first];
    must(size !== undefined, `${this.where}: no ${kind} at byte ${this.at - 1}`);
    return this.uint(size);
  }

  array() {
    const length = this.header("array", 0x90, 0x0f, { 0xdc: 2, 0xdd: 4 });
    must(length <= this.bytes.length - this.at, `${this.where}: an array is longer than the bytes that are left`);
    return length;
  }

  map() {
    return this.header("map", 0x80, 0x0f, { 0xde: 2, 0xdf: 4 });
  }

  bin() {
    return this.take(this.header("byte string", 0, 0, { 0xc4: 1, 0xc5: 2, 0xc6: 4 }));
  }

  str() {
    const bytes = this.take(this.header("string", 0xa0, 0x1f, { 0xd9: 1, 0xda: 2, 0xdb: 4 }));
    try {
      return utf8.decode(bytes);
    } catch {
      throw new Refused(`${this.where}: a string is not UTF-8`);
    }
  }

  /** A whole number: a BigInt where a Number would not be exact. */
  wide() {
    const first = this.uint(1);
    if (first < 0x80) return first;
    if (first >= 0xe0) return first - 0x100;
    must((first >= 0xcc && first <= 0xcf) || (first >= 0xd0 && first <= 0xd3), `${this.where}: no whole number`);
    const size = 1 << (first & 3);
    const value = BigInt(this.uint(size));
    const signed = first >= 0xd0 ? BigInt.asIntN(8 * size, value) : value;
    return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
  }

  int() {
    const value = this.wide();
    must(typeof value === "number", `${this.where}: a number is out of range`);
    return value;
  }

  count() {
    const value = this.int();
    must(value >= 0, `${this.where}: a count is negative`);
    return value;
  }

  column(pull) {
    return Array.from({ length: this.array() }, () => pull.call(this));
  }

  digests() {
    return digestsIn(this.bin(), this.where);
  }

  /** Any value but extension types, maps with string keys that are there once, at most `depth` containers deep. */
  any(depth) {
    must(this.at < this.bytes.length, `${this.where}: ends too early`);
    const first = this.bytes[this.at];
    if (first >= 0x80 && first <= 0x8f) return this.dict(depth);
    if (first >= 0x90 && first <= 0x9f) return this.list(depth);
    if (first >= 0xa0 && first <= 0xbf) return this.str();
    if (first < 0x80 || first >= 0xe0 || (first >= 0xcc && first <= 0xd3)) return this.wide();
    switch (first) {
      case 0xc0:
      case 0xc2:
      case 0xc3:
        this.at += 1;
        return { 0xc0: null, 0xc2: false, 0xc3: true }[first];
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.bin();
      case 0xca:
        this.at += 1;
        return this.take(4).readFloatBE();
      case 0xcb:
        this.at += 1;
        return this.take(8).readDoubleBE();
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.str();
      case 0xdc:
      case 0xdd:
        return this.list(depth);
      case 0xde:
      case 0xdf:
        return this.dict(depth);
    }
    throw new Refused(`${this.where}: type ${first.toString(16)} is not accepted`);
  }

  list(depth) {
    must(depth > 0, `${this.where}: is nested too deeply`);
    return this.column(() => this.any(depth - 1));
  }

  dict(depth) {
    must(depth > 0, `${this.where}: is nested too deeply`);
    const found = new Map();
    for (let left = this.map(); left > 0; left -= 1) {
      const key = this.str();
      must(!found.has(key), `${this.where}: the key ${JSON.stringify(key)} is there twice`);
      found.set(key, this.any(depth - 1));
    }
    return found;
  }
}

function digestsIn(bytes, where) {
  must(bytes.length % 32 === 0, `${where}: digests are cut off`);
  return Array.from({ length: bytes.length / 32 }, (_, n) => "sha256:" + bytes.toString("hex", 32 * n, 32 * n + 32));
}

function unique(ids, what) {
  must(new Set(ids).size === ids.length, `${what}: an id is there twice`);
}

const hash = (bytes) => "sha256:" + createHash("sha256").update(bytes).digest("hex");
const hex = (id) => id.slice("sha256:".length);

/** By code point, which is the order of the UTF-8; JavaScript's own is that of UTF-16. */
function snapshotId(manifest) {
  const entries = Array.from(manifest, ([path, object]) => Buffer.from(`${path}\0${hex(object)}`));
  entries.sort(Buffer.compare);
  return hash(Buffer.concat(entries.flatMap((entry, n) => (n ? [Buffer.from([0]), entry] : [entry]))));
}

function commitId(commit, last) {
  return hash([commit.parent_ids.map(hex).sort().join("\0"), hex(commit.snapshot_id), commit.message, last].join("\0"));
}

/** The raw bytes of one zstd frame (RFC 8878, section 3.1.1) that says by itself that it has `raw` of them. */
function unzstd(stored, raw, where) {
  const header = new Unpacker(stored, where);
  must(header.uint(4) === 0x28b52ffd, `${where}: no zstd frame`);
  const descriptor = header.uint(1);
  const single = descriptor & 0x20;
  must(!(descriptor & 0x08), `${where}: a reserved bit of zstd is set`);
  if (!single) {
    const window = header.uint(1);
    must((1 << 10 + (window >> 3)) * (1 + (window & 7) / 8) <= 1 << 24 && window >> 3 <= 14, `${where}: the window`);
  }
  const dictionary = header.take([0, 1, 2, 4][descriptor & 3]);
  must(dictionary.every((byte) => byte === 0), `${where}: needs a dictionary`);
  const size = header.take([single ? 1 : 0, 2, 4, 8][descriptor >> 6]);
  must(size.length > 0, `${where}: does not state its size`);
  const stated = size.reduceRight((value, byte) => value * 256 + byte, 0) + (size.length === 2 ? 256 : 0);
  must(stated === raw, `${where}: states ${stated} bytes, not ${raw}`);
  for (let last = 0; !last; ) {
    const block = header.take(3).readUIntLE(0, 3);
    last = block & 1;
    header.take(((block >> 1) & 3) === 1 ? 1 : block >> 3);
  }
  header.take(descriptor & 4);
  header.end();
  try {
    const bytes = zstdDecompressSync(stored, { maxOutputLength: Math.max(raw, 1) });
    must(bytes.length === raw, `${where}: has ${bytes.length} bytes, not ${raw}`);
    return bytes;
  } catch (error) {
    throw error instanceof Refused ? error : new Refused(`${where}: ${error.message}`);
  }
}

/** The table of contents: its frames as {kind, codec, raw, count, bytes}, `bytes` being what is stored. */
function readTable(file) {
  must(file.length >= 24 && file.subarray(0, 8).equals(MAGIC), "no mpack of version 1");
  must(file.subarray(-8).equals(END), "the end of the file is missing");
  const stored = file.readUInt32BE(file.length - 16);
  const raw = file.readUInt32BE(file.length - 12);
  const begin = file.length - 16 - stored;
  must(begin >= 8 && stored <= raw && raw <= MAX_TABLE, "table: its size is wrong");
  const bytes = file.subarray(begin, begin + stored);
  const table = new Unpacker(stored < raw ? unzstd(bytes, raw, "table") : bytes, "table");
  const found = new Map();
  for (let left = table.map(); left > 0; left -= 1) {
    const key = table.str();
    must(!found.has(key), `table: the key ${JSON.stringify(key)} is there twice`);
    if (key === "needs") found.set(key, table.column(table.str));
    else if (key === "frames") found.set(key, Array.from({ length: table.array() }, () => table.column(table.count)));
    else found.set(key, table.any(MAX_TABLE_DEPTH));
  }
  table.end();
  must(found.has("needs") && found.has("frames"), "table: a key is missing");
  must(found.get("needs").length === 0, `the pack needs ${found.get("needs")}`);
  return placed(found.get("frames"), file, begin);
}

function placed(columns, file, end) {
  must(columns.length === 5 && columns.every((column) => column.length === columns[0].length), "table: columns");
  const [kinds, codecs, storedSizes, rawSizes, counts] = columns;
  let at = 8;
  let total = 0;
  let last = 0;
  const frames = kinds.map((kind, n) => {
    must((kind >= BLOBS && kind <= COMMITS) || kind >= OPTIONAL, `frame ${n}: kind ${kind}`);
    // Outside ids may also come between snapshots.
    const order = kind === OUTSIDE ? SNAPSHOTS : kind;
    if (kind >= OPTIONAL) last = Math.max(last, DIRECTORY);
    else must(order >= last, `frame ${n}: is in the wrong place`);
    if (kind < OPTIONAL) last = order;
    const bytes = file.subarray(at, at + storedSizes[n]);
    at += storedSizes[n];
    must(at <= end, `frame ${n}: is not in the file`);
    if (kind < OPTIONAL) {
      must(codecs[n] <= 1, `frame ${n}: codec ${codecs[n]}`);
      must(codecs[n] ? storedSizes[n] < rawSizes[n] : storedSizes[n] === rawSizes[n], `frame ${n}: its sizes`);
      must(rawSizes[n] <= (kind === BLOBS ? 1 << 24 : 1 << 22), `frame ${n}: is larger than it may be`);
      total += rawSizes[n];
    }
    return { name: `frame ${n}`, kind, codec: codecs[n], raw: rawSizes[n], count: counts[n], bytes };
  });
  must(at === end, "the frames do not fill the file");
  must(total <= MAX_RAW, "the pack is larger than this reader takes");
  return frames;
}

const content = (frame) => (frame.codec ? unzstd(frame.bytes, frame.raw, frame.name) : frame.bytes);

function readBlobs(frames, directories) {
  const ids = [];
  const sizes = [];
  for (const frame of directories) {
    const columns = new Unpacker(content(frame), frame.name);
    must(columns.array() === 2, `${frame.name}: has not two columns`);
    const found = columns.digests();
    const lengths = columns.column(columns.count);
    columns.end();
    must(found.length === frame.count && lengths.length === frame.count, `${frame.name}: its count is wrong`);
    ids.push(...found);
    sizes.push(...lengths);
  }
  unique(ids, "blobs");
  const bytes = Buffer.concat(frames.map(content));
  let at = 0;
  const blobs = ids.map((object_id, n) => {
    at += sizes[n];
    return { object_id, content: bytes.subarray(at - sizes[n], at) };
  });
  must(at === bytes.length, "blobs: their sizes do not add up");
  let next = 0;
  let begin = 0;
  let end = 0;
  for (const frame of frames) {
    end += frame.raw;
    for (let left = frame.count; left > 0; left -= 1, next += 1) {
      must(next < ids.length, `${frame.name}: its count is wrong`);
      // At the border of two frames a blob begins in the one that counts it.
      must(begin <= end, `${frame.name}: its count is wrong`);
      begin += sizes[next];
    }
    must(begin >= end, `${frame.name}: its count is wrong`);
  }
  must(next === ids.length, "blobs: the counts of the frames are wrong");
  return blobs;
}

/** What goes on from one snapshots frame to the next. */
class Manifests {
  constructor(objects) {
    this.objects = objects;
    this.found = [];
    this.manifest = new Map();
    this.touched = null;
    this.entries = 0;
  }

  read(frame) {
    const columns = new Unpacker(content(frame), frame.name);
    must(columns.array() === 9, `${frame.name}: has not nine columns`);
    const paths = columns.column(columns.str);
    const codes = columns.column(columns.count);
    const removedCounts = columns.column(columns.count);
    const removed = columns.column(columns.count);
    const changedCounts = columns.column(columns.count);
    const changed = columns.column(columns.count);
    const steps = columns.column(columns.int);
    const storedOrdinals = columns.column(columns.count);
    const storedIds = columns.digests();
    columns.end();
    unique(paths, `${frame.name}, paths`);
    must(codes.length === removedCounts.length && codes.length === changedCounts.length, `${frame.name}: its rows`);
    must(steps.length === changed.length, `${frame.name}: its steps`);
    must(storedIds.length === storedOrdinals.length, `${frame.name}: its stored ids`);
    must(storedOrdinals.every((ordinal, n) => n === 0 || ordinal > storedOrdinals[n - 1]), `${frame.name}: ordinals`);
    must(storedOrdinals.every((ordinal) => ordinal < frame.count), `${frame.name}: a stored id of no snapshot`);
    const stored = new Map(storedOrdinals.map((ordinal, n) => [ordinal, storedIds[n]]));
    let newPaths = 0;
    let object = 0;
    let ended = 0;
    const nextPath = (code) => {
      const n = code === 0 ? newPaths++ : code - 1;
      must(n < newPaths && n < paths.length, `${frame.name}: a path code names no path`);
      return paths[n];
    };
    let atRemoved = 0;
    let atChanged = 0;
    codes.forEach((code, row) => {
      const where = `${frame.name}, row ${row}`;
      must((code & ~5) === 0, `${where}: an unknown code`);
      must(this.touched === null || code & 1, `${where}: does not go on with its snapshot`);
      must(row > 0 || this.touched !== null || !(code & 1), `${where}: starts from no row`);
      if (!(code & 1)) this.manifest = new Map();
      this.touched ??= new Set();
      for (let left = removedCounts[row]; left > 0; left -= 1, atRemoved += 1) {
        must(atRemoved < removed.length, `${where}: removes more than there is`);
        const path = nextPath(removed[atRemoved]);
        must(!this.touched.has(path) && this.manifest.delete(path), `${where}: removes what it may not`);
      }
      for (let left = changedCounts[row]; left > 0; left -= 1, atChanged += 1) {
        must(atChanged < changed.length, `${where}: changes more than there is`);
        const path = nextPath(changed[atChanged]);
        must(!this.touched.has(path), `${where}: sets a path twice`);
        this.touched.add(path);
        object = (this.manifest.get(path) ?? object) + steps[atChanged];
        must(object >= 0 && object < this.objects.length, `${where}: object ${object} is not there`);
        this.manifest.set(path, object);
      }
      if (code & 4) return;
      this.entries += this.manifest.size;
      must(this.entries <= MAX_ENTRIES, "the manifests are larger than this reader takes");
      const manifest = new Map(Array.from(this.manifest, ([path, n]) => [path, this.objects[n]]));
      this.found.push({ snapshot_id: stored.get(ended) ?? snapshotId(manifest), manifest });
      this.touched = null;
      ended += 1;
    });
    must(atRemoved === removed.length && atChanged === changed.length, `${frame.name}: rows are missing`);
    must(newPaths === paths.length, `${frame.name}: a path is not used`);
    must(ended === frame.count, `${frame.name}: its count is wrong`);
  }
}

function readCommits(frame, snapshots, commits) {
  const columns = new Unpacker(content(frame), frame.name);
  must(columns.array() === 11, `${frame.name}: has not eleven columns`);
  const rules = columns.column(columns.count);
  const stored = columns.digests();
  const outside = columns.digests();
  const parentCounts = columns.column(columns.count);
  const parents = columns.column(columns.int);
  const snapshotSteps = columns.column(columns.int);
  const [branches, messages, authors, dates] = [0, 1, 2, 3].map(() => columns.column(columns.str));
  const further = columns.column(columns.bin);
  columns.end();
  for (const column of [rules, parentCounts, snapshotSteps, branches, messages, authors, dates, further])
    must(column.length === frame.count, `${frame.name}: a column has not ${frame.count} values`);
  let next = 0;
  let atParent = 0;
  let atStored = 0;
  for (let n = 0; n < frame.count; n += 1) {
    const where = `${frame.name}, commit ${n}`;
    const parentIds = [];
    for (let left = parentCounts[n]; left > 0; left -= 1, atParent += 1) {
      must(atParent < parents.length, `${where}: a parent is missing`);
      const step = parents[atParent];
      const id = step > 0 ? commits[commits.length - step]?.commit_id : outside[-step];
      must(id !== undefined, `${where}: a parent is not there`);
      parentIds.push(id);
    }
    const step = snapshotSteps[n];
    const even = step % 2 === 0;
    const snapshot = even ? snapshots[next + step / 2]?.snapshot_id : outside[(step - 1) / 2];
    must(snapshot !== undefined, `${where}: its snapshot is not there`);
    if (even) next += step / 2 + 1;
    const commit = {
      commit_id: null,
      parent_ids: parentIds,
      snapshot_id: snapshot,
      branch: branches[n],
      message: messages[n],
      author: authors[n],
      committed_at: dates[n],
    };
    must(rules[n] <= 2, `${where}: id rule ${rules[n]}`);
    must(rules[n] < 2 || atStored < stored.length, `${where}: its id is missing`);
    commit.commit_id = rules[n] === 2 ? stored[atStored++] : commitId(commit, rules[n] ? authors[n] : dates[n]);
    commits.push(further[n].length ? withFurther(commit, further[n], where) : commit);
  }
  must(atParent === parents.length && atStored === stored.length, `${frame.name}: a column is too long`);
}

function withFurther(commit, bytes, where) {
  const fields = new Unpacker(bytes, `${where}, further fields`);
  const found = fields.dict(MAX_FURTHER_DEPTH);
  fields.end();
  must(!FIELDS.some((name) => found.has(name)), `${where}: a further field has the name of another`);
  return { ...commit, ...Object.fromEntries(found) };
}

/** Return {commits, snapshots, blobs} of the bytes of a pack, manifests as Map, or throw Refused. */
export function readMPack(file) {
  const frames = readTable(file);
  const of = (kind) => frames.filter((frame) => frame.kind === kind);
  const blobs = readBlobs(of(BLOBS), of(DIRECTORY));
  const outside = of(OUTSIDE).flatMap((frame) => {
    const found = digestsIn(content(frame), frame.name);
    must(found.length === frame.count, `${frame.name}: its count is wrong`);
    return found;
  });
  unique(outside, "outside ids");
  const manifests = new Manifests([...blobs.map((blob) => blob.object_id), ...outside]);
  for (const frame of of(SNAPSHOTS)) manifests.read(frame);
  must(manifests.touched === null, "the last snapshot does not end");
  const snapshots = manifests.found;
  unique(snapshots.map((snapshot) => snapshot.snapshot_id), "snapshots");
  const commits = [];
  for (const frame of of(COMMITS)) readCommits(frame, snapshots, commits);
  unique(commits.map((commit) => commit.commit_id), "commits");
  return { commits, snapshots, blobs };
}

/** Refuse a pack with an entity that does not hash to its id: what to do with one that a stranger sent. */
export function verify({ commits, snapshots, blobs }) {
  for (const { object_id, content } of blobs) must(hash(content) === object_id, `false: blob ${object_id}`);
  for (const { snapshot_id, manifest } of snapshots)
    must(snapshotId(manifest) === snapshot_id, `false: snapshot ${snapshot_id}`);
  for (const commit of commits) {
    const valid = [commitId(commit, commit.committed_at), commitId(commit, commit.author)];
    must(valid.includes(commit.commit_id), `false: commit ${commit.commit_id}`);
  }
}

function asJson(value) {
  if (Buffer.isBuffer(value)) return { $base64: value.toString("base64") };
  if (typeof value === "bigint") return JSON.rawJSON(value.toString());
  if (Array.isArray(value)) return value.map(asJson);
  if (value === null || typeof value !== "object") return value;
  const entries = value instanceof Map ? [...value] : Object.entries(value);
  return Object.fromEntries(entries.map(([key, item]) => [key, asJson(item)]));
}

function main(options) {
  try {
    const pack = readMPack(readFileSync(options.at(-1)));
    if (options.includes("--verify")) verify(pack);
    console.log(JSON.stringify(asJson(pack)));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.error(`refused: ${error.message}`);
    process.exitCode = 1;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) main(process.argv.slice(2));
