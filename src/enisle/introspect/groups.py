"""Thread groups from data: where a group's list of threads begins, and how its threads hang on it."""

import struct
from collections import Counter

from enisle.introspect.lists import walk_list
from enisle.introspect.memory import Unmapped
from enisle.introspect.structures import TaskSample


def threads_of(sample: TaskSample, signal: int) -> None:
    """Find thread_node and signal->thread_head: a lone thread's node and its group's head point to each other."""
    votes: Counter[tuple[int, int]] = Counter()
    looked = 0
    for task in sample.tasks[1:33]:
        try:
            group = sample.space.u64(task + signal)
            words = struct.unpack("<512Q", sample.space.read(task, 4096))
            for index, word in enumerate(words):
                lone = group <= word < group + 0x100 and sample.space.u64(word) == task + 8 * index
                if lone and words[index + 1] == word:
                    votes[8 * index, word - group] += 1
        except (Unmapped, IndexError, struct.error):
            continue
        looked += 1
    common = votes.most_common(2)
    if not common or common[0][1] < 0.5 * looked or (len(common) > 1 and common[1][1] * 2 > common[0][1]):
        return
    (node, head), count = common[0]
    trace = f"node and head point to each other in {count} lone threads"
    sample.add("task_struct.thread_node", node, "lone threads", trace)
    sample.add("signal_struct.thread_head", head, "lone threads", trace)
    if _threads_belong(sample, signal, node, head):
        sample.add("task_struct.thread_node", node, "groups", "every thread found has its leader's tgid")
        sample.add("signal_struct.thread_head", head, "groups", "every thread found has its leader's tgid")


def _threads_belong(sample: TaskSample, signal: int, node: int, head: int) -> bool:
    tgid = sample.offset("task_struct.tgid")
    if tgid is None:
        return False
    try:
        for task in sample.tasks[1:]:
            walk = walk_list(sample.space, sample.space.u64(task + signal) + head, most=4096)
            if not walk.nodes or any(
                sample.space.u32(member - node + tgid) != sample.space.u32(task + tgid) for member in walk.nodes
            ):
                return False
    except Unmapped:
        return False
    return True
