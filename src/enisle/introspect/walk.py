"""Follow a function from its entry and tell what it does: calls and their arguments, memory it touches, results.

Registers and the function's own stack are tracked along the first path that reaches each instruction. A jump to
another function is a call. Promises: bounded by bytes and instructions; `complete` says whether all was seen.
"""

from collections.abc import Callable

from enisle.introspect.decode import Decoder, Imm, Instruction, Mem, Operand, Reg
from enisle.introspect.events import IMPLICIT, Access, Call, Event, Return, Walked
from enisle.introspect.values import MASK, Value, add, const, depth
from enisle.records import Record

SYSV = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
"""Registers of the first six arguments: System V psABI for x86-64, 3.2.3."""
SYSV_LOST = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")
DEEPEST = 6
ENDS = frozenset(("ret", "retf", "iretq", "sysretq", "sysexitq", "ud2", "hlt", "int3"))


class Convention(Record):
    """Where arguments are passed, and what a call does not keep."""

    arguments: tuple[str, ...] = SYSV
    lost: tuple[str, ...] = SYSV_LOST


class State:
    """What is known at one point of a path."""

    __slots__ = ("registers", "sites", "stack")

    def __init__(self, registers: dict[str, Value], sites: dict[str, int], stack: dict[int, Value]) -> None:
        self.registers, self.sites, self.stack = registers, sites, stack

    def copy(self) -> "State":
        return State(dict(self.registers), dict(self.sites), dict(self.stack))


class Walker:
    """Walks the functions of one image; what was walked is remembered."""

    def __init__(
        self,
        decoder: Decoder,
        is_text: Callable[[int], bool],
        is_function: Callable[[int], bool] = lambda address: False,
        convention: Convention = Convention(),  # noqa: B008 - immutable
    ) -> None:
        self.decoder = decoder
        self.is_text = is_text
        self.is_function = is_function
        self.convention = convention
        self._known: dict[tuple[int, int, int], Walked] = {}

    def walk(self, entry: int, span: int = 6000, most: int = 1500) -> Walked:
        """Return what the function at `entry` does, seen within `span` bytes and `most` instructions."""
        key = (entry, span, most)
        if key not in self._known:
            self._known[key] = _Walk(self, entry, span, most).run()
        return self._known[key]

    def is_return(self, target: int) -> bool:
        """Return whether the code at `target` only returns (a return thunk)."""
        for _ in range(4):
            instruction = self.decoder.at(target)
            if instruction is None:
                return False
            if instruction.name == "ret":
                return True
            if instruction.name not in ("nop", "endbr64", "lfence", "int3"):
                return False
            target = instruction.end
        return False

    def callee(self, target: int) -> tuple[bool, str | None]:
        """Return whether `target` is an indirect-branch thunk, and the register it jumps to."""
        instruction = self.decoder.at(target)
        if instruction is not None and instruction.name == "jmp" and isinstance(instruction.operands[0], Reg):
            return True, instruction.operands[0].name
        return False, None


class _Walk:
    """One walk under way."""

    def __init__(self, walker: Walker, entry: int, span: int, most: int) -> None:
        self._walker, self._entry, self._span, self._most = walker, entry, span, most
        self._arguments = walker.convention.arguments
        self._lost = walker.convention.lost
        self._events: list[Event] = []
        self._seen: set[int] = set()
        self._work: list[tuple[int, State]] = []
        self._complete = True

    def run(self) -> Walked:
        registers: dict[str, Value] = {name: ("arg", index) for index, name in enumerate(self._arguments)}
        registers["rsp"] = ("stack", 0)
        self._work.append((self._entry, State(registers, {}, {})))
        while self._work:
            self._path(*self._work.pop())
            if len(self._seen) >= self._most:
                self._complete = False
                break
        return Walked(self._entry, tuple(self._events), self._complete, len(self._seen))

    def _path(self, at: int, state: State) -> None:
        """Follow one path until it ends, leaves, or joins what was seen."""
        while at not in self._seen and len(self._seen) < self._most:
            instruction = self._walker.decoder.at(at)
            if instruction is None:
                self._complete = False
                return
            self._seen.add(at)
            if instruction.name[0] == "j" and not self._jump(instruction, state):
                return
            if instruction.name in ENDS:
                if instruction.name == "ret":
                    self._events.append(Return(at, state.registers.get("rax")))
                return
            if instruction.name == "call":
                if not self._is_traced(instruction):
                    self._call(instruction, state, tail=False)
            elif instruction.name[0] != "j":
                self._step(instruction, state)
            at = instruction.end

    def _is_traced(self, instruction: Instruction) -> bool:
        """Return whether a call is that of function tracing: the first instruction, to a trampoline; it keeps all."""
        operand = instruction.operands[0]
        first = instruction.address in (self._entry, self._entry + 4)
        return first and isinstance(operand, Imm) and not self._walker.is_text(operand.value)

    def _jump(self, instruction: Instruction, state: State) -> bool:
        """Handle a jump; return whether the path goes on behind it."""
        conditional = instruction.name != "jmp"
        operand = instruction.operands[0]
        if not isinstance(operand, Imm):
            address = self._address(operand, state) if isinstance(operand, Mem) else None
            if address is not None and isinstance(operand, Mem):
                self._events.append(Access(instruction.address, address, 8, "jmp", False))
            self._call(instruction, state, tail=True)
            return False
        target = operand.value
        if self._inside(target):
            self._work.append((target, state.copy()))
        elif self._walker.is_return(target):
            self._events.append(Return(instruction.address, state.registers.get("rax")))
        else:
            self._call(instruction, state, tail=True)
        return conditional

    def _inside(self, target: int) -> bool:
        """Return whether a jump stays in the function; one a little backwards may reach a cold part laid out before."""
        if not self._entry - 64 <= target < self._entry + self._span:
            return False
        return target == self._entry or not self._walker.is_function(target)

    def _call(self, instruction: Instruction, state: State, tail: bool) -> None:
        target = self._value(instruction.operands[0], state)
        if target is not None and target[0] == "const":
            is_thunk, register = self._walker.callee(target[1])
            if is_thunk:  # a retpoline: the register is what is called
                target = state.registers.get(register or "")
        arguments = tuple(state.registers.get(name) for name in self._arguments)
        sites = tuple(state.sites.get(name, 0) for name in self._arguments)
        self._events.append(Call(instruction.address, target, arguments, sites, tail))
        if not tail:
            for name in self._lost:
                state.registers.pop(name, None)
            known = target is not None and target[0] == "const"
            state.registers["rax"] = ("result", target[1] if known and target is not None else instruction.address)

    # -- one instruction

    def _step(self, instruction: Instruction, state: State) -> None:
        name, operands = instruction.name, instruction.operands
        if name in ("nop", "endbr64"):
            return
        if name != "lea":
            self._note_access(instruction, state)
        if name in ("mov", "movabs", "movzx", "movsx", "movsxd") and len(operands) == 2:
            self._move(instruction, state)
        elif name == "lea":
            self._set(operands[0], self._address(operands[1], state), instruction, state)
        elif name in ("add", "sub", "inc", "dec"):
            self._sum(instruction, state)
        elif name == "xor" and len(operands) == 2 and operands[0] == operands[1]:
            self._set(operands[0], const(0), instruction, state)
        elif name == "push":
            self._push(operands[0], state)
        elif name == "pop":
            self._pop(operands[0], instruction, state)
        elif name in ("cmp", "test", "bt"):
            pass
        else:
            self._forget(instruction, state)

    def _note_access(self, instruction: Instruction, state: State) -> None:
        for position, operand in enumerate(instruction.operands):
            if not isinstance(operand, Mem):
                continue
            address = self._address(operand, state)
            if address is None or address[0] == "stack" or instruction.name.startswith(("nop", "prefetch")):
                continue
            write = position == 0 and instruction.name not in ("cmp", "test", "push", "bt")
            stored = self._value(instruction.operands[1], state) if write and instruction.name == "mov" else None
            self._events.append(
                Access(instruction.address, address, operand.size, instruction.name, write, stored, instruction.locked)
            )

    def _move(self, instruction: Instruction, state: State) -> None:
        target, source = instruction.operands
        if isinstance(target, Mem):
            address = self._address(target, state)
            if address is not None and address[0] == "stack":
                full = target.size == 8
                state.stack[address[1]] = self._value(source, state) if full else None
            return
        value = self._value(source, state)
        if isinstance(target, Reg) and target.size < 4:
            value = None  # the rest of the register stays
        elif isinstance(target, Reg) and target.size == 4 and value is not None and value[0] == "const":
            value = const(value[1] & 0xFFFF_FFFF)
        self._set(target, value, instruction, state)

    def _sum(self, instruction: Instruction, state: State) -> None:
        target = instruction.operands[0]
        if not isinstance(target, Reg):
            return
        operand = instruction.operands[1] if len(instruction.operands) > 1 else Imm(1)
        sign = 1 if instruction.name in ("add", "inc") else -1
        value = state.registers.get(target.name)
        if isinstance(operand, Imm) and target.size == 8:
            step = operand.value - (1 << 64) if operand.value >> 63 else operand.value
            value = add(value, sign * step)
        else:
            other = self._value(operand, state)
            value = ("sum", value, other) if sign > 0 and value and other and target.size == 8 else None
        self._set(target, value, instruction, state)

    def _push(self, operand: Operand, state: State) -> None:
        pointer = add(state.registers.get("rsp"), -8)
        state.registers["rsp"] = pointer
        if pointer is not None and pointer[0] == "stack":
            state.stack[pointer[1]] = self._value(operand, state)

    def _pop(self, operand: Operand, instruction: Instruction, state: State) -> None:
        pointer = state.registers.get("rsp")
        value = state.stack.get(pointer[1]) if pointer is not None and pointer[0] == "stack" else None
        self._set(operand, value, instruction, state)
        state.registers["rsp"] = add(pointer, 8)

    def _forget(self, instruction: Instruction, state: State) -> None:
        """Forget what an instruction not modelled may have written."""
        name = instruction.name
        lost = IMPLICIT.get(name.split()[0], ())
        if name.startswith("rep"):
            lost = ("rcx", "rsi", "rdi", "rax")
        if name in ("mul", "imul", "div", "idiv") and len(instruction.operands) == 1:
            lost = ("rax", "rdx")
        for register in lost:
            state.registers.pop(register, None)
        written = instruction.operands[:2] if name in ("xchg", "xadd") else instruction.operands[:1]
        for operand in written:
            if isinstance(operand, Reg):
                state.registers.pop(operand.name, None)
                state.sites[operand.name] = instruction.address

    # -- operands

    def _set(self, operand: Operand, value: Value, instruction: Instruction, state: State) -> None:
        if not isinstance(operand, Reg):
            return
        if value is None or depth(value) > DEEPEST:
            state.registers.pop(operand.name, None)
        else:
            state.registers[operand.name] = value
        state.sites[operand.name] = instruction.address

    def _value(self, operand: Operand, state: State) -> Value:
        if isinstance(operand, Imm):
            return const(operand.value)
        if isinstance(operand, Reg):
            return state.registers.get(operand.name)
        address = self._address(operand, state)
        if address is None:
            return None
        if address[0] == "stack":
            return state.stack.get(address[1])
        return ("load", address, operand.size)

    def _address(self, operand: Operand, state: State) -> Value:
        """Return the address a memory operand means."""
        if not isinstance(operand, Mem):
            return None
        if operand.gs:
            return ("percpu", operand.disp & MASK) if not operand.base and not operand.scaled else None
        base = state.registers.get(operand.base) if operand.base else const(0)
        if not operand.scaled:
            return add(base, operand.disp)
        number = base[1] + operand.disp if base is not None and base[0] == "const" else None
        if number is None:
            return None
        return ("index", number & MASK, operand.scale, state.registers.get(operand.scaled))
