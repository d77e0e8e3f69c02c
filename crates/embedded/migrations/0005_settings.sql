-- What operators set, and the audit of what they did. The audit only grows.

CREATE TABLE operator_audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    by     TEXT NOT NULL,
    ip     TEXT NOT NULL,
    what   TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TRIGGER operator_audit_stays_as_written BEFORE UPDATE ON operator_audit BEGIN
    SELECT RAISE(ABORT, 'operator_audit only grows');
END;
CREATE TRIGGER operator_audit_stays BEFORE DELETE ON operator_audit BEGIN
    SELECT RAISE(ABORT, 'operator_audit only grows');
END;

CREATE TABLE settings (
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    body    TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
