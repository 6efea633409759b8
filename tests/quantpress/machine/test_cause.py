"""What an error's message says of a program that failed: the cause first, and no frames."""

from __future__ import annotations

from pathlib import Path

from quantpress.machine.cause import cause_of_exit, cause_of_kill

CHAINED = """\
loading
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    open("x")
FileNotFoundError: [Errno 2] No such file or directory: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
    raise RuntimeError("no weights")
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
RuntimeError: Error(s) in loading state_dict for Linear:
\tsize mismatch for weight
Exception ignored in: <function Pool.__del__ at 0x7f0000000000>
"""

REPORT = """\
LlamaForCausalLM LOAD REPORT from: /source
Key                                    | Status  |
---------------------------------------+---------+-
model.layers.1.self_attn.q_proj.weight | MISSING |
model.layers.1.self_attn.k_proj.weight | MISSING |

Notes:
- MISSING:\tthose params were newly initialized because missing from the checkpoint.
step 1
step 2
step 3
step 4
step 5
step 6
step 7
step 8
step 9
Traceback (most recent call last):
  File "job.py", line 80, in <module>
    main()
ValueError: a row of NaN
"""

ABORTED = """\
llama_model_loader: loaded meta data
[New LWP 4711]
[Thread debugging using libthread_db enabled]
#0  0x00007f7f5e4d4bd7 in wait4 () from /lib/libc.so.6
#1  0x00007f7f5e8b02b2 in ggml_print_backtrace () from libggml-base.so
[Inferior 1 (process 4711) detached]
terminate called after throwing an instance of 'std::out_of_range'
  what():  unordered_map::at
"""

ASSERTED = """\
main: computing
/src/llama-vocab.cpp:3210: GGML_ASSERT(id != LLAMA_TOKEN_NULL) failed
libggml-base.so.0(+0x179f6)[0x7f2b3fc0e9f6]
libggml-base.so.0(ggml_abort+0x15e)[0x7f2b3fc0ed0e]
"""


def test_the_last_exception_of_a_chain_comes_first() -> None:
    said = cause_of_exit(CHAINED).said_of("job failed with exit code 1", Path("/home/logs/1.log")).splitlines()

    assert said[0] == (
        "RuntimeError: Error(s) in loading state_dict for Linear: (job failed with exit code 1, log: /home/logs/1.log)"
    )
    assert "  | \tsize mismatch for weight" in said
    assert not any("File " in line or "^^^" in line or "raise " in line for line in said)


def test_what_was_said_of_the_weights_comes_with_it() -> None:
    """Nine later lines push the report out of the last lines."""
    said = cause_of_exit(REPORT).said_of("job failed with exit code 1").splitlines()

    assert said[:3] == [
        "ValueError: a row of NaN (job failed with exit code 1)",
        "  | model.layers.1.self_attn.q_proj.weight | MISSING |",
        "  | model.layers.1.self_attn.k_proj.weight | MISSING |",
    ]
    assert said[-1] == "  | step 9"


def test_many_tensors_are_counted() -> None:
    rows = "".join(f"layer.{number} | MISSING | \n" for number in range(40))

    said = cause_of_exit(rows).quoted.splitlines()

    assert said[0] == "  | layer.0 | MISSING |"
    assert said[8] == "  | and 32 more such tensors"
    assert len(said) == 9


def test_what_a_tool_gave_up_with_comes_first() -> None:
    assert cause_of_kill(ABORTED).said_of("llama-imatrix was killed by SIGABRT").splitlines() == [
        "what():  unordered_map::at (llama-imatrix was killed by SIGABRT)",
        "  | llama_model_loader: loaded meta data",
        "  | terminate called after throwing an instance of 'std::out_of_range'",
    ]
    assert cause_of_kill(ASSERTED).said_of("llama-imatrix was killed by SIGABRT").splitlines() == [
        "/src/llama-vocab.cpp:3210: GGML_ASSERT(id != LLAMA_TOKEN_NULL) failed (llama-imatrix was killed by SIGABRT)",
        "  | main: computing",
    ]


def test_what_llama_cpp_says_of_a_template_is_put_together() -> None:
    said = (
        "terminate called after throwing an instance of 'std::invalid_argument'\n"
        "  what():  Unable to generate parser. Automatic parser generation failed: \n------------\n"
        "While executing FilterExpression at line 1\n...{{ x | groupby }}...\nError: Unknown filter 'groupby'\n"
    )
    assert cause_of_kill(said).line == (
        "what():  Unable to generate parser. Automatic parser generation failed: Error: Unknown filter 'groupby'"
    )


def test_a_caught_exception_is_not_why_a_process_was_killed() -> None:
    said = cause_of_kill(REPORT).said_of("job was killed by SIGKILL")

    assert said.splitlines()[0] == "job was killed by SIGKILL"
    assert said.splitlines()[-1] == "  | ValueError: a row of NaN"


def test_a_log_without_a_cause_is_quoted() -> None:
    assert cause_of_exit("one\ntwo\n").said_of("tool failed with exit code 1", Path("/l")).splitlines() == [
        "tool failed with exit code 1 (log: /l)",
        "  | one",
        "  | two",
    ]
    assert cause_of_exit("").said_of("tool failed with exit code 1") == "tool failed with exit code 1"
