"""TensorBoard's files, read back as the records they are made of."""

import html
import io
import struct

from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from m2io_jax.pages import LEAST_TILE, LINE
from m2io_jax.training.logging.tensorboard import TensorBoard


def read_events(folder):
    """Reads TensorBoard's record files by their published layout: length, its checksum, event, its checksum."""
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def test_tensorboard_is_told_of_scalars_and_of_what_a_resume_takes_back(tmp_path):
    board = TensorBoard(tmp_path)
    board.write(1, {"reward": 0.25})
    board.write(2, {"reward": 0.5, "kl": None})
    board.truncate_after(1)
    board.write(2, {"reward": 0.75})
    board.close()
    events = list(read_events(tmp_path))
    scalars = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert scalars == [(1, "reward", 0.25), (2, "reward", 0.5), (2, "reward", 0.75)]
    starts = [event.step for event in events if event.session_log.status == SessionLog.START]
    assert starts == [2]


def test_samples_are_a_picture_and_a_text(tmp_path, samples, hostile, attack):
    board = TensorBoard(tmp_path)
    board.show(samples)
    board.show(hostile)
    board.close()
    events = list(read_events(tmp_path))
    values = [(event.step, value) for event in events for value in event.summary.value]
    assert [step for step, _ in values] == [7] * 4
    drawn, text, _, foreign = (value for _, value in values)
    assert drawn.tag == "samples/1"
    sheet = Image.open(io.BytesIO(drawn.image.encoded_image_string))
    assert sheet.size == (2 * LEAST_TILE, LINE + LEAST_TILE)
    assert sheet.getpixel((LEAST_TILE + 3, LINE + 3)) == (0, 0, 255)
    assert text.tensor.string_val[0].decode() == samples.tables[0]
    assert "<script" not in foreign.tensor.string_val[0].decode()
    assert attack in html.unescape(foreign.tensor.string_val[0].decode())
