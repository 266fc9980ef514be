"""The platform's processes: `python -m enisle.control supervise|controller|dispatcher|agent|keeper|vm`; not yours."""

import sys


def main(words: list[str]) -> int:
    match words:
        case ["keeper", directory]:
            from enisle.control.keeper import main as keeper

            return keeper(directory)
        case ["supervise", state]:
            from enisle.control.supervisor import main as supervise

            return supervise(state)
        case ["dispatcher", state, *more]:
            from enisle.control.dispatcher import main as dispatcher

            return dispatcher(state, more)
        case ["controller", *both]:
            from enisle.control.controller import main as controller

            return controller(both)
        case ["agent", state, *more]:
            from enisle.control.agent import main as agent

            return agent(state, more)
        case ["vm"]:
            from enisle.control.vm_work import main as vm_work

            return vm_work()
        case _:
            sys.stderr.write("this is started by `enisle up` and `enisle join`\n")
            return 2


sys.exit(main(sys.argv[1:]))
