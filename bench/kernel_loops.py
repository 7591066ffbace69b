"""The loops of a kernel in its SASS, as nvdisasm -c prints it, what a pass over an element costs, and what a product does."""

import re

LABEL = re.compile(r"\s*(\.L_\w+):")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)")
TARGET = re.compile(r"\((\.L_\w+)\)")
# Accesses of 16 bytes, by how a mnemonic begins: what comes to shared memory, what goes, what is read of it.
WIDE = {name: re.compile(rf"{name}\..*\b128\b") for name in ("LDGSTS", "STG", "STS", "LDS", "LDG")}


def loops(text):
    """Mnemonics of each innermost loop of one kernel, in order: what lies between a branch backwards and where it goes."""
    code, labels, found = [], {}, []
    for line in text.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(code)
        elif instruction := INSTRUCTION.match(line):
            code.append(instruction[1])
            target = TARGET.search(instruction[2])
            # A branch to itself is what a kernel ends with.
            if instruction[1].startswith("BRA") and target and labels.get(target[1], len(code)) < len(code) - 1:
                found.append((labels[target[1]], len(code)))
    inner = [(a, b) for a, b in found if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in found)]
    return [code[a:b] for a, b in sorted(set(inner))]


def pieces(loop):
    """How many pieces of 16 bytes a loop takes at once, and its accesses of 16 bytes."""
    wide = {name: sum(bool(of.match(mnemonic)) for mnemonic in loop) for name, of in WIDE.items()}
    return wide["LDGSTS"] or wide["STG"] or wide["STS"] or wide["LDS"], wide


def passes(all_loops):
    """The loops over pieces of 16 bytes that read shared memory or copy into it, each with its pieces: of those that do
    the same to a piece one behind the other (several at a time, then what is left; this source or that) the first."""
    found, last = [], None
    for loop in all_loops:
        count, wide = pieces(loop)
        if not wide["LDGSTS"] and not wide["LDS"]:
            continue
        work = [sum(m.startswith(name) for m in loop) / count for name in ("MUFU", "FFMA", "FADD")]
        kind = [n / count for n in wide.values()] + work
        if kind != last:
            found.append((loop, count))
        last = kind
    return found


def per_element(all_loops, elements):
    """Instructions for each element, so many a piece, where every pass goes over the same pieces: as many copies as the
    first pass over shared memory reads, each pass that stays there, and the dearest that stores to the device's memory."""
    stay, store, copy, copies = 0.0, 0.0, 0.0, 0
    for loop, count in passes(all_loops):
        wide, cost = pieces(loop)[1], len(loop) / count
        if wide["LDGSTS"]:
            copy = max(copy, cost)
            continue
        copies = copies or wide["LDS"] // count
        if wide["STG"]:
            store = max(store, cost)
        else:
            stay += cost
    return (copies * copy + stay + store) / elements


# Tensor cores' instructions; bytes that a warp moves by an instruction on shared memory.
PRODUCT = re.compile(r"(HMMA|HGMMA|IMMA)\.")
SHARED = [(re.compile(r"LDSM\.16\..*\.4$"), 512), (re.compile(r"LDSM\.16\..*\.2$"), 256), (re.compile(r"LDGSTS.*\.128$"), 512),
          (re.compile(r"(LDS|STS)\.128$"), 512), (re.compile(r"(LDS|STS)\.64$"), 256), (re.compile(r"(LDS|STS)$"), 128)]
ASYNC = re.compile(r"LDGSTS|UTMALDG|UBLKCP")


def products(loop):
    return sum(bool(PRODUCT.match(mnemonic)) for mnemonic in loop)


def main_loop(all_loops):
    """The loop with the most products, or None."""
    best = max(all_loops, key=products, default=[])
    return best if products(best) else None


def shared_bytes(loop):
    """Bytes that a warp moves to and from shared memory in one turn."""
    return sum(next((size for of, size in SHARED if of.match(mnemonic)), 0) for mnemonic in loop)


def copies(loop):
    """Asynchronous copies of global memory in one turn."""
    return sum(bool(ASYNC.match(mnemonic)) for mnemonic in loop)


def store_bits(text):
    """How wide a kernel's stores to global memory are, the widest first."""
    widths = {"": 32, "64": 64, "128": 128, "U8": 8, "S8": 8, "U16": 16, "S16": 16}
    return sorted({widths[w] for w in re.findall(r"\bSTG\.E(?:\.([SU]?\d+))?\b", text)}, reverse=True)
