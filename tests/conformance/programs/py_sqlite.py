"""sqlite3 with a write-ahead log: transactions, two connections, two processes, locks."""

import os
import sqlite3
import threading

one = sqlite3.connect("test.db", timeout=20)
print(one.execute("pragma journal_mode=wal").fetchone())
one.execute("create table t (id integer primary key, name text, value real)")
with one:
    one.executemany("insert into t (name, value) values (?, ?)", [(f"name{n % 100}", n / 7) for n in range(5000)])
print(one.execute("select count(*), round(sum(value), 3), max(name) from t").fetchone())
one.execute("create index by_name on t (name)")
print(one.execute("select name, count(*) from t group by name order by name limit 3").fetchall())
two = sqlite3.connect("test.db", timeout=0.1)
one.execute("begin immediate")
one.execute("delete from t where id > 100")
print("a reader sees the old", two.execute("select count(*) from t").fetchone())
try:
    two.execute("insert into t (name) values ('blocked')")
except sqlite3.OperationalError as error:
    print(error)
one.commit()
print("then the new", two.execute("select count(*) from t").fetchone())
child = os.fork()
if not child:
    mine = sqlite3.connect("test.db", timeout=20)
    with mine:
        mine.executemany("insert into t (name) values (?)", [("child",)] * 50)
    mine.close()
    os._exit(0)
print(os.waitpid(child, 0)[1], one.execute("select count(*) from t where name = 'child'").fetchone())


def insert() -> None:
    connection = sqlite3.connect("test.db", timeout=60)
    for _ in range(10):
        with connection:
            connection.execute("insert into t (name) values ('thread')")
    connection.close()


threads = [threading.Thread(target=insert) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(one.execute("select count(*) from t where name = 'thread'").fetchone())
two.close()
print(one.execute("pragma integrity_check").fetchone(), one.execute("pragma wal_checkpoint(truncate)").fetchone()[0])
one.close()
print(sorted(os.listdir()), open("test.db", "rb").read(15))
