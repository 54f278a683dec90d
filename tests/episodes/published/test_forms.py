"""Rows in the form of each trainer, one small file a form."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from row_fakes import bad_row, image, read_all, read_row, shown, write_images, write_lines

ROUND = [10, "\n", "How many?"]
PARTS = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "How many?"}]
THOUGHT = "<think>One red, two blue.</think>\n<answer>3</answer>"


def turns(role: str, content: str, question: str = "<image>How many?", answer: str = THOUGHT) -> list:
    names = {"role": ("user", "assistant"), "from": ("human", "gpt")}[role]
    return [{role: names[0], content: question}, {role: names[1], content: answer}]


FORMS = {
    "TRL, prompt as text": {"prompt": "How many?", "images": ["a.png"], "solution": THOUGHT},
    "TRL, prompt as a chat": {
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}],
        "image": "a.png",
        "solution": THOUGHT,
    },
    "TRL, prompt and completion": {
        "prompt": [{"role": "user", "content": "<image>How many?"}],
        "completion": [{"role": "assistant", "content": THOUGHT}],
        "images": ["a.png"],
    },
    "R1-V": {"image": "a.png", "problem": "How many?", "solution": THOUGHT},
    "EasyR1": {"images": ["a.png"], "problem": "<image>How many?", "answer": "3", "reasoning": "One red, two blue."},
    "VLM-R1": {"id": 1, "image": "a.png", "conversations": turns("from", "value")},
    "VLM-R1, images in a list": {"id": 1, "image": ["a.png"], "conversations": turns("from", "value")},
    "LLaVA": {"id": "1", "image": "a.png", "conversations": turns("from", "value", "How many?\n<image>".strip())},
    "LLaMA-Factory, OpenAI": {"messages": turns("role", "content"), "images": ["a.png"]},
    "LLaMA-Factory, ShareGPT": {"conversations": turns("from", "value"), "images": ["a.png"], "system": ""},
    "LLaMA-Factory, alpaca": {"instruction": "<image>How many?", "input": "", "output": THOUGHT, "images": ["a.png"]},
    "ms-swift, messages": {"messages": turns("role", "content")[:1], "images": "a.png", "solution": THOUGHT},
    "ms-swift, query": {"query": "<image>How many?", "response": THOUGHT, "history": [], "images": ["a.png"]},
    "LMM-R1": {"message": json.dumps([{"role": "user", "content": PARTS}, {"role": "assistant", "content": THOUGHT}])},
    "a chat as JSON in a string": {"messages": json.dumps(turns("role", "content")), "images": '["a.png"]'},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_each_trainer_is_read_with_image_answer_and_reasoning(tmp_path, form):
    episode = read_row(tmp_path, FORMS[form])
    expected = ["How many?\n", 10] if form == "LLaVA" else ROUND
    assert shown(episode) == expected
    assert (episode.answer, episode.reasoning) == ("3", "One red, two blue.")


def test_verl_in_parquet(tmp_path):
    def row(images, number):
        asked = "<image>" * len(images) + "How many?"
        return {
            "data_source": "geometry",
            "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": asked}],
            "images": images,
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(number)},
            "extra_info": {"split": "train", "index": number, "answer": "no", "question": asked},
        }

    held = [{"bytes": image(40), "path": None}]
    named = [{"bytes": None, "path": "b.png"}, {"bytes": image(50, "JPEG"), "path": "x.jpg"}]
    table = pyarrow.Table.from_pylist([row(held, 1), row(named, 2), row([], 3)])
    pyarrow.parquet.write_table(table, write_images(tmp_path) / "all.parquet")
    report, found = read_all(tmp_path)
    assert [shown(found[number]) for number in (1, 2, 3)] == [
        [40, "\n", "How many?"], [20, "\n", pytest.approx(50, abs=3), "\n", "How many?"], ["How many?"],
    ]  # fmt: skip
    assert [found[number].answer for number in (1, 2, 3)] == ["1", "2", "3"]
    assert report.noted == {"its system turn": 3} and "3 kept without its system turn" in report.summary()


def test_arrays_in_json_and_lines_in_json(tmp_path):
    rows = [FORMS["VLM-R1"], "no row", FORMS["LLaMA-Factory, OpenAI"]]
    (write_images(tmp_path) / "array.json").write_text(json.dumps(rows, indent=2))
    write_lines(tmp_path / "lines.json", FORMS["R1-V"], FORMS["EasyR1"])
    (tmp_path / "dataset_info.json").write_text(json.dumps({"set": {"file_name": "array.json"}}, indent=2))
    report, _ = read_all(tmp_path)
    assert report.kept == 4 and report.bad == {"a row without columns": 1}
    assert report.unread_files == [("dataset_info.json", "JSON that is neither an array of rows nor a row a line")]


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [*turns("role", "content"), {"role": "user", "content": "And now?"}]},
        {"messages": [{"role": "user", "content": "How many?"}, {"role": "tool", "content": "3"}]},
        {"conversations": [*turns("from", "value"), *turns("from", "value")]},
        {"query": "How many?", "response": "3", "history": [["What?", "Balls."]]},
        {"messages": [{"role": "assistant", "content": "3"}]},
    ],
)
def test_chats_of_several_turns_are_left_out(tmp_path, more):
    assert bad_row(tmp_path, {"answer": "3"} | more) == "a chat that is not one question"


@pytest.mark.parametrize(
    "prompt",
    [
        "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n",
        "[INST] How many? [/INST]",
        "<start_of_turn>user\nHow many?<end_of_turn>",
        [{"role": "user", "content": "<|user|>How many?<|end|>"}],
    ],
)
def test_a_prompt_in_a_chat_template_is_left_out(tmp_path, prompt):
    assert "chat template" in bad_row(tmp_path, {"prompt": prompt, "answer": "3"})


def test_a_video_that_images_come_from_does_not_leave_them_out(tmp_path):
    row = {"problem": "How many?", "image": "a.png", "video_id": "x7", "answer": "3"}
    assert shown(read_row(tmp_path, row)) == ROUND


def test_other_columns_of_answers_are_compared_and_teach_nothing(tmp_path):
    row = {"problem": "Q?", "answer": "3", "ground_truth": "three of them are red", "final_answer": 3}
    episode = read_row(tmp_path, row)
    assert (episode.answer, episode.reasoning) == ("3", "")


def test_roles_in_capitals(tmp_path):
    chat = [{"role": "User", "content": "How many?"}, {"role": "ASSISTANT", "content": "3"}]
    assert read_row(tmp_path, {"messages": chat}).answer == "3"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"problem": "How many?", "image_path": "a.png"}, "not read: image_path"),
        ({"problem": "How many?", "picture": {"bytes": None, "path": "a.png"}}, "not read: picture"),
        ({"problem": "How many?", "imgs": ["a.png", "b.png"]}, "not read: imgs"),
        ({"problem": "How many?", "file_name": "train/7.JPG"}, "not read: file_name"),
        ({"problem": "How many?", "image_url": "https://example.com/x.webp?size=3"}, "not read: image_url"),
        ({"problem": "How many?", "photo": "data:image/png;base64,AAAA"}, "not read: photo"),
        ({"problem": "How many?", "left": "a.png", "right": "b.png"}, "not read: left, right"),
        ({"problem": "How many?", "image": "a.png", "image_2": "b.png"}, "not read: image_2"),
        ({"problem": "How many?", "image_1": "a.png", "image_3": "b.png"}, "numbered images"),
        ({"problem": "Which?", "options": ["red", "blue"], "answer": "B"}, "choices in a column that is not read"),
        ({"problem": "Which?", "options": "['red', 'blue']", "answer": "(A)"}, "not read: options"),
        ({"problem": "Which?", "choices": ["red", "blue"], "answer": 1}, "not read: choices"),
        ({"question": "Which?", "A": "red", "B": "blue", "answer": "B"}, "not read: A, B"),
        ({"question": "How many?", "image_id": 458752}, "not read: image_id"),
        ({"question": "How many?", "imgPath": "val/000123"}, "not read: imgPath"),
        ({"question": "How many?", "image_url": "https://example.com/000123"}, "not read: image_url"),
        ({"question": "How many?", "pixel_values": [[0.1] * 30]}, "not read: pixel_values"),
        ({"question": "How many?", "video_path": "clip"}, "video or audio"),
        ({"question": "Which?", "choices": ["1", "2", "3"], "answer": 1}, "not read: choices"),
        ({"question": "Which?", "choices": [10, 20, 30], "answer": 0}, "not read: choices"),
        ({"question": "Which, cat or dog?", "choices": ["cat", "dog"], "answer": 1}, "not read: choices"),
        ({"question": "Which, cat or dog?", "choices": ["cat", "dog"], "answer": "B"}, "not read: choices"),
        ({"question": "Which?", "options": {"A": "cat", "B": "dog"}, "answer": "A"}, "not read: options"),
        ({"question": "Which?", "choices": {"text": ["cat", "dog"], "label": ["A", "B"]}, "answer": "B"}, "choices"),
        ({"question": "Which?", "option_a": "cat", "option_b": "dog", "answer": "A"}, "not read: option_a, option_b"),
        (
            {"question": "Which?", "options": [f"cat {i}" for i in range(40)], "answer": "Z"},
            "not read: options",
        ),
        ({"question": "Which?", "options": "A. cat\nB. dog", "answer": "B"}, "not read: options"),
        ({"question": "Which?", "choices": ["cat", "dog"], "answer": "Option B"}, "not read: choices"),
        ({"problem": "Q?", "answer": "3", "final_answer": 4}, "two answers that differ"),
        ({"problem": "Q?", "answer": "3", "ground_truth": "4"}, "two answers that differ"),
        ({"problem": "Q?", "answer": "3", "reward_model": {"ground_truth": "4"}}, "two answers that differ"),
        ({"problem": "Q?", "answer": True}, "no answer"),
        ({"instruction": "Q?", "input": {"a": 1}, "output": "3"}, "no question"),
        ({"problem": "Where is <bbox>?", "objects": {"bbox": [[1, 2, 3, 4]]}}, "<bbox>"),
    ],
)
def test_what_is_not_read_leaves_the_row_out_and_is_named(tmp_path, row, reason):
    assert reason in bad_row(tmp_path, {"answer": "3"} | row)


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "Which? A. red B. blue", "options": ["red", "blue"], "answer": "B"},
        {"problem": "Which?", "options": ["3", "4"], "answer": "4"},
        {"problem": "Which?", "options": "[broken", "answer": "A"},
        {"problem": "Which?", "options": [], "answer": "A"},
        {"problem": "Which? A. red B. blue", "options": {"A": "red", "B": "blue"}, "answer": "B"},
        {"problem": "How many?", "options": ["2", "3", "4"], "answer": "3"},
        {"problem": "How many?", "choices": [2, 3, 4], "answer": 3},
        {"problem": "Which?", "choices": ["red", "blue"], "answer": "9" * 6000},
    ],
)
def test_choices_that_the_question_says_or_does_not_need(tmp_path, row):
    write_lines(tmp_path / "rows.jsonl", row)
    report, found = read_all(tmp_path)
    assert not any("choices" in reason for reason in report.bad) and (found or len(str(row)) > 5000)


@pytest.mark.parametrize(
    "column", [{"has_image": False}, {"num_images": 0}, {"image_id": None}, {"image_url": ""}, {"image_caption": "red"}]
)
def test_columns_about_images_that_hold_none(tmp_path, column):
    assert shown(read_row(tmp_path, {"problem": "How many?", "answer": "3"} | column)) == ["How many?"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"images": [], "image": "a.png"}, [10]),
        ({"images": None, "image": {"path": "b.png"}}, [20]),
        ({"images": [None], "image": "a.png"}, [10]),
        ({"images": "", "image": ["b.png"]}, [20]),
        ({"images": float("nan"), "image": "c.png"}, [30]),
        ({"image_1": "a.png", "image_2": "b.png", "image_3": None}, [10, 20]),
        ({"multi_modal_data": {"image": ["c.png"]}}, [30]),
        ({"images": [{"image": "a.png"}, {"image_url": {"url": "b.png"}}]}, [10, 20]),
        ({"image": "a.png", "image_path": "elsewhere/a.png"}, [10]),
        ({"images": [], "image": None}, []),
    ],
)
def test_the_column_that_is_filled_counts(tmp_path, columns, expected):
    words = shown(read_row(tmp_path, {"problem": "How many?", "answer": "3"} | columns))
    assert [part for part in words if isinstance(part, int)] == expected


def test_columns_of_other_names_are_read_where_they_are_given(tmp_path):
    row = {"ask": "<image>How many?", "meta": {"gold": "3"}, "photo": "a.png", "answer": "no"}
    write_lines(tmp_path / "data" / "rows.jsonl", row)
    write_images(tmp_path / "elsewhere")
    settings = dict(prompt_key="ask", answer_key="meta.gold", image_key="photo")
    report, found = read_all(tmp_path / "data", **settings, image_folder=str(tmp_path / "elsewhere"))
    assert shown(found[1]) == ROUND and found[1].answer == "3" and not report.bad
    assert read_all(tmp_path / "data")[0].bad == {"no question": 1}
