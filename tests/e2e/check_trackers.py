"""Reads what the trackers of a run have written with protocol buffers' own Python library, and compares it with
metrics.jsonl: check_trackers.py RUN. The messages are those that W&B (wandb_internal.proto) and TensorFlow
(event.proto, summary.proto, tensor.proto) publish, as far as the trackers use them; a field that is not among them
is an error. Checksums are computed here anew."""
import glob
import json
import os
import re
import struct
import sys
import zlib

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
TYPES = {"int32": FIELD.TYPE_INT32, "int64": FIELD.TYPE_INT64, "bool": FIELD.TYPE_BOOL, "string": FIELD.TYPE_STRING,
         "bytes": FIELD.TYPE_BYTES, "double": FIELD.TYPE_DOUBLE, "float": FIELD.TYPE_FLOAT}


def messages(package, text):
    """{name: class} from lines "Message: number name type, number name type[]"; enums are int32."""
    file = descriptor_pb2.FileDescriptorProto(name=package + ".proto", package=package, syntax="proto3")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, fields = line.split(":")
        message = file.message_type.add(name=name)
        for field in filter(None, map(str.strip, fields.split(","))):
            number, field_name, kind = field.split()
            entry = message.field.add(name=field_name, number=int(number), label=FIELD.LABEL_OPTIONAL)
            if kind.endswith("[]"):
                entry.label, kind = FIELD.LABEL_REPEATED, kind[:-2]
            if kind in TYPES:
                entry.type = TYPES[kind]
            else:
                entry.type, entry.type_name = FIELD.TYPE_MESSAGE, "." + package + "." + kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    create = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(pool).GetPrototype
    return {m.name: create(pool.FindMessageTypeByName(package + "." + m.name)) for m in file.message_type}


WANDB = messages("wandb_internal", """
    Record: 1 num int64, 2 history HistoryRecord, 3 summary SummaryRecord, 5 config ConfigRecord, 6 files FilesRecord, 7 stats StatsRecord, 17 run RunRecord, 18 exit RunExitRecord, 20 final FinalRecord, 21 header HeaderRecord, 22 footer FooterRecord
    HeaderRecord: 1 version_info VersionInfo
    VersionInfo: 1 producer string, 2 min_consumer string
    FinalRecord:
    FooterRecord:
    RunRecord: 1 run_id string, 2 entity string, 3 project string, 4 config ConfigRecord, 5 summary SummaryRecord, 8 display_name string, 13 host string, 17 start_time Timestamp
    Timestamp: 1 seconds int64, 2 nanos int32
    RunExitRecord: 1 exit_code int32, 2 runtime int32
    HistoryStep: 1 num int64
    HistoryRecord: 1 item Item[], 2 step HistoryStep
    SummaryRecord: 1 update Item[], 2 remove Item[]
    ConfigRecord: 1 update Item[], 2 remove Item[]
    Item: 1 key string, 2 nested_key string[], 16 value_json string
    FilesRecord: 1 files FilesItem[]
    FilesItem: 1 path string, 2 policy int32, 3 type int32
    StatsRecord: 1 stats_type int32, 2 timestamp Timestamp, 3 item StatsItem[]
    StatsItem: 1 key string, 16 value_json string
""")
TENSORBOARD = messages("tensorboard", """
    Event: 1 wall_time double, 2 step int64, 3 file_version string, 5 summary Summary
    Summary: 1 value Value[]
    Value: 1 tag string, 2 simple_value float, 8 tensor TensorProto, 9 metadata SummaryMetadata
    SummaryMetadata: 1 plugin_data PluginData
    PluginData: 1 plugin_name string, 2 content bytes
    TensorProto: 1 dtype int32, 2 tensor_shape TensorShape, 8 string_val bytes[]
    TensorShape: 2 dim Dim[]
    Dim: 1 size int64
""")


def parse(kind, data):
    message = kind()
    message.ParseFromString(data)
    known = kind()
    known.ParseFromString(data)
    known.DiscardUnknownFields()
    assert known.ByteSize() == len(data), "unknown fields in %r" % data
    return message


# --- W&B

def leveldb_records(data):
    assert data[:7] == struct.pack("<4sHB", b":W&B", 0xBEE1, 0), "the head of the file"
    at, record, kinds = 7, b"", {1: "whole", 2: "first", 3: "middle", 4: "last"}
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            assert data[at:at + left] == bytes(left), "padding"
            at += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at:at + 7])
        chunk = data[at + 7:at + 7 + length]
        assert len(chunk) == length and length <= left - 7 and kind in kinds
        assert zlib.crc32(chunk, zlib.crc32(bytes([kind]))) == checksum, "checksum at %d" % at
        assert (kind in (1, 2)) == (record == b"")
        record += chunk
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""
    assert record == b"", "a record without an end"


def values(items):
    assert all(len(i.nested_key) == 1 and not i.key for i in items)
    return {i.nested_key[0]: json.loads(i.value_json) for i in items}


def check_wandb(run, metrics):
    [folder] = glob.glob(os.path.join(run, "wandb", "offline-run-*"))
    id = re.fullmatch(r"offline-run-\d{8}_\d{6}-([a-z0-9]{8})", os.path.basename(folder)).group(1)
    records = [parse(WANDB["Record"], r) for r in leveldb_records(open(os.path.join(folder, "run-%s.wandb" % id), "rb").read())]
    kinds = [next(f.name for f, _ in r.ListFields() if f.name != "num") for r in records]
    assert [r.num for r in records] == list(range(1, len(records) + 1)), "numbers"
    assert kinds[:3] == ["header", "run", "files"], kinds[:3]
    assert kinds[-4:] == ["summary", "exit", "final", "footer"], kinds[-4:]
    assert set(kinds[3:-4]) == {"history", "stats"}, set(kinds)
    start = records[1].run
    config = values(start.config.update)
    merged = json.load(open(os.path.join(run, "checkpoint-%d" % max(metrics), "config.json")))
    assert start.run_id == id and start.project and start.start_time.seconds > 1_600_000_000
    assert config["hidden_size"] == merged["hidden_size"] and config["training.lr"] == merged["training"]["lr"]
    steps = []
    for record in records:
        if not record.HasField("history"):
            continue
        step, entry = record.history.step.num, values(record.history.item)
        steps.append(step)
        assert entry["_step"] == step and entry["_runtime"] >= 0 and entry["_timestamp"] > 1_600_000_000
        ours = {k: v for k, v in metrics[step].items() if k not in ("step", "memory")}
        assert {k: v for k, v in entry.items() if k[0] != "_"} == ours, (step, entry, ours)
    assert steps == sorted(metrics), "every step once"
    summary = values(records[-4].summary.update)
    assert summary["loss"] == metrics[max(metrics)]["loss"] and summary["_step"] == max(metrics)
    assert records[-3].exit.exit_code == 0
    files = os.path.join(folder, "files")
    assert json.load(open(os.path.join(files, "wandb-summary.json"))) == summary
    assert json.load(open(os.path.join(files, records[2].files.files[0].path)))["program"] == "nf-train"
    assert "training.lr:\n  desc: null\n  value: %s\n" % json.dumps(config["training.lr"]) in open(os.path.join(files, "config.yaml")).read()
    return len(records)


# --- TensorBoard

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tf_records(data):
    at = 0
    while at < len(data):
        (length,), (head,) = struct.unpack("<Q", data[at:at + 8]), struct.unpack("<I", data[at + 8:at + 12])
        record = data[at + 12:at + 12 + length]
        assert masked(data[at:at + 8]) == head, "checksum of a length"
        assert masked(record) == struct.unpack("<I", data[at + 12 + length:at + 16 + length])[0], "checksum of a record"
        yield record
        at += 16 + length


def check_tensorboard(run, metrics):
    [file] = glob.glob(os.path.join(run, "tensorboard", "events.out.tfevents.*"))
    events = [parse(TENSORBOARD["Event"], r) for r in tf_records(open(file, "rb").read())]
    assert events[0].file_version == "brain.Event:2"
    [text] = events[1].summary.value
    assert text.metadata.plugin_data.plugin_name == "text" and text.tensor.dtype == 7
    assert b'"attention_type"' in text.tensor.string_val[0] and text.tensor.tensor_shape.dim[0].size == 1
    read = {}
    for event in events[2:]:
        assert event.wall_time > 1_600_000_000
        for value in event.summary.value:
            group, name = value.tag.split("/")
            name = "val_" + name if group == "validation" else name
            assert name not in read.setdefault(event.step, {}), "step %d has %s twice" % (event.step, name)
            read[event.step][name] = value.simple_value
    single = lambda v: struct.unpack("f", struct.pack("f", v))[0]
    wanted = {s: {k: single(v) for k, v in m.items() if k != "step"} for s, m in metrics.items()}
    assert read == wanted, "the values of every step"
    return len(events)


def main():
    run, metrics = sys.argv[1], {}
    for line in open(os.path.join(run, "metrics.jsonl")):
        record = json.loads(line)
        metrics.setdefault(record["step"], {}).update(record)
    print("%d records for W&B, %d events for TensorBoard" % (check_wandb(run, metrics), check_tensorboard(run, metrics)))


main()
