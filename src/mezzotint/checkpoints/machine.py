"""The machine that runs a stranger's pickle: it can build tensors' descriptions, nothing else.

A pickle is a program for a stack machine: it names functions and calls them.  This machine is
written here, over the decoder of the standard library's `pickletools`, which executes nothing.
It knows three names (what builds a tensor, a parameter, an ordered dictionary) and the types of
storages; every other name stands for one inert object that keeps nothing and does nothing,
whatever is done with it.  So nothing of the file's author ever runs, and a checkpoint that holds a
training program's objects beside its weights still opens.

What a program may cost is limited too: each instruction, each 16 characters of a text and each
element that a call reads is a step, and there are so many steps and no more.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from mezzotint.checkpoints.limits import MAX_NAME, shown

_MAX_DIMS = 64  # torch's own limit
_LETTERS = 16  # of a text, a step
_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class ProgramError(ValueError):
    """A program does what no program of PyTorch does."""


class Storage(NamedTuple):
    """Numbers in the file: where they lie is known by ``key``."""

    key: str
    dtype: torch.dtype
    numbers: int


class View(NamedTuple):
    """A tensor that is still in the file: part of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Type(NamedTuple):
    """A storage class, as a pickle names it."""

    dtype: torch.dtype


class _Function(NamedTuple):
    """One of the names that a program may call: a key of ``_CALLS``."""

    name: str


class _Inert:
    """What every other name of a pickle, and all that is made with it, stands for."""

    __slots__ = ()


_INERT = _Inert()
_FUNCTIONS = {
    ("torch._utils", "_rebuild_tensor_v2"): _Function("tensor"),
    ("torch._utils", "_rebuild_tensor"): _Function("tensor"),
    ("torch._utils", "_rebuild_parameter"): _Function("parameter"),
    ("collections", "OrderedDict"): _Function("table"),
}


class Reads(Protocol):
    """Bytes one after the other, as a file or a mapped one gives them."""

    def read(self, n: int = ..., /) -> bytes: ...

    def readline(self) -> bytes: ...

    def tell(self) -> int: ...


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _sizes(value: object) -> bool:
    return isinstance(value, tuple) and len(value) <= _MAX_DIMS and all(map(_natural, value))


def _put(table: object, key: object, value: object) -> None:
    """``table[key] = value``, where the key is a name: others are kept from being hashed."""
    if isinstance(table, dict):
        if isinstance(key, str) and len(key) <= MAX_NAME:
            table[key] = value
        elif isinstance(key, str) and isinstance(value, View):
            raise ProgramError(f"a tensor's name of {len(key)} characters is too long")
    elif table is not _INERT:
        raise ProgramError("it tries to change what is no table")


class Machine:
    """One run of a program.

    steps: how many are left; storages: those that the program has spoken of, by key.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: Reads) -> Any:
        """The value that a program leaves; ``file`` then stands behind its end.

        Raises:
            ProgramError, and nearly anything else: the bytes are a stranger's.
        """
        push = self._push
        argument: Any
        for code, argument, _ in pickletools.genops(file):  # pyright: ignore[reportArgumentType]
            self._spend(1)
            name = code.name
            if name in _PUSHED:
                push(self._constant(argument))
            elif name in _NUMBERED:
                self._memo[argument] = self._stack[-1]
            elif name in _RECALLED:
                push(self._memo[argument])
            elif name in _INERT_ONES:
                push(_INERT)
            elif name == "STOP":
                return self._stack.pop()
            elif name not in _IGNORED:
                _DO[name](self, argument)
        raise ProgramError("it has no end")

    # --- the stack --------------------------------------------------------------------------

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise ProgramError("its program is too long for the weights in it")

    def _constant(self, value: Any) -> Any:
        if isinstance(value, str):
            self._spend(len(value) // _LETTERS)
        elif isinstance(value, int) and abs(value) >= 2**128:
            return _INERT
        return value

    def _items(self) -> list[Any]:
        """What lies above the last mark."""
        found, self._stack = self._stack, self._marked.pop()
        return found

    def _mark(self, _: object) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _drop(self, _: object) -> None:
        self._items()

    def _frozenset(self, _: object) -> None:
        self._items()
        self._push(_INERT)

    def _pop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._items()

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise ProgramError("its stack is empty")
        at = len(self._stack) - count
        self._stack[at:] = [tuple(self._stack[at:])]

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif target is not _INERT:
            raise ProgramError("it tries to extend what is no list")

    def _fill(self, pairs: list[Any]) -> None:
        if len(pairs) % 2:
            raise ProgramError("a key lacks its value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            _put(self._stack[-1], key, value)

    def _dict(self, _: object) -> None:
        pairs = self._items()
        self._push({})
        self._fill(pairs)

    def _setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _put(self._stack[-1], key, value)

    def _memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    # --- names and calls --------------------------------------------------------------------

    def _named(self, module: object, name: object) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ProgramError("a name is no text")
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _Type(_DTYPES[name])
        return _FUNCTIONS.get((module, name), _INERT)

    def _global(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._push(self._named(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._push(self._named(module, name))

    def _call(self, function: object, arguments: Any) -> Any:
        if isinstance(function, _Function):
            if not isinstance(arguments, tuple | list):
                raise ProgramError("a call's arguments are malformed")
            return _CALLS[function.name](self, *arguments[:8])
        if function is _INERT:
            return _INERT
        raise ProgramError("it calls what is no function")

    def _reduce(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._push(self._call(function, arguments))

    def _new_with_names(self, _: object) -> None:
        self._stack.pop()
        self._reduce(None)

    def _instance(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        arguments = self._items()
        self._push(self._call(self._named(module, name), arguments))

    def _object(self, _: object) -> None:
        function, *arguments = self._items()
        self._push(self._call(function, arguments))

    def _build(self, _: object) -> None:
        """An object's attributes; of a table, the versions of a state dict's modules."""
        self._stack.pop()
        if self._stack[-1] is not _INERT and not isinstance(self._stack[-1], dict):
            raise ProgramError("it tries to change what it was lent")

    def _persistent(self, _: object) -> None:
        """``("storage", type, key, device, count)``, and in old files a view, always None."""
        told = self._stack.pop()
        if not (isinstance(told, tuple) and len(told) in (5, 6) and told[0] == "storage"):
            raise ProgramError("it refers to something that is no storage of weights")
        _, kind, key, _, count = told[:5]
        if not isinstance(kind, _Type) or not isinstance(key, str) or not _natural(count):
            raise ProgramError("a storage's description is malformed")
        if len(key) > MAX_NAME:
            raise ProgramError("a storage's name is too long")
        if len(told) == 6 and told[5] is not None:
            raise ProgramError("it has views of storages, which no release writes")
        found = Storage(key, kind.dtype, count)
        if self.storages.setdefault(key, found) != found:
            raise ProgramError(f"the storage {shown(key)} is described twice, in two ways")
        self._push(found)

    def _refuse(self, _: object) -> None:
        raise ProgramError("it has an instruction that PyTorch never writes")

    def _table(self, pairs: object = (), *_: object) -> dict[str, Any]:
        """``collections.OrderedDict``, of nothing or of pairs."""
        table: dict[str, Any] = {}
        if not isinstance(pairs, list | tuple):
            raise ProgramError("an ordered dictionary is made of no pairs")
        self._spend(len(pairs))
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ProgramError("an ordered dictionary is made of no pairs")
            _put(table, *pair)
        return table

    def _tensor(self, *told: object) -> View:
        """``torch._utils._rebuild_tensor_v2``, but for touching memory."""
        storage, offset, shape, stride, *_ = told
        sized = _sizes(shape) and _sizes(stride) and len(shape) == len(stride)  # type: ignore[arg-type]
        if not isinstance(storage, Storage) or not _natural(offset) or not sized:
            raise ProgramError("a tensor's description is malformed")
        return View(storage, offset, shape, stride)  # type: ignore[arg-type]

    def _parameter(self, data: object = None, *_: object) -> object:
        """``torch._utils._rebuild_parameter``."""
        return data


_CALLS: dict[str, Callable[..., Any]] = {
    "tensor": Machine._tensor,
    "parameter": Machine._parameter,
    "table": Machine._table,
}
_PUSHED = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
    ]
)
_INERT_ONES = frozenset(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "EMPTY_SET"])
_NUMBERED = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_RECALLED = frozenset(["GET", "BINGET", "LONG_BINGET"])
_IGNORED = frozenset(["PROTO", "FRAME"])
_DO: dict[str, Callable[[Machine, Any], None]] = {
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "TUPLE": lambda m, _: m._push(tuple(m._items())),
    "LIST": lambda m, _: m._push(m._items()),
    "DICT": Machine._dict,
    "APPEND": lambda m, _: m._extend([m._stack.pop()]),
    "APPENDS": lambda m, _: m._extend(m._items()),
    "SETITEM": Machine._setitem,
    "SETITEMS": lambda m, _: m._fill(m._items()),
    "ADDITEMS": Machine._drop,
    "FROZENSET": Machine._frozenset,
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": Machine._drop,
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "MEMOIZE": Machine._memoize,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._new_with_names,
    "INST": Machine._instance,
    "OBJ": Machine._object,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
    **dict.fromkeys(
        ("PERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"), Machine._refuse
    ),
}
