-- What one write puts on disk is counted in pages. An audit entry is one: the table itself is in the order in which it
-- is read. So is a change: the oldest are removed a hundred at a time, for they stand on another page.

ALTER TABLE audit RENAME TO audit_before;

CREATE TABLE audit (
    user_id TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    number INTEGER NOT NULL,          -- the order of a user's entries of one moment
    app TEXT,
    action TEXT NOT NULL,
    memory_id TEXT,
    scope TEXT,
    request_id TEXT,
    PRIMARY KEY (user_id, timestamp, number)
) STRICT, WITHOUT ROWID;

INSERT INTO audit (user_id, timestamp, number, app, action, memory_id, scope, request_id)
    SELECT user_id, timestamp, number, app, action, memory_id, scope, request_id FROM audit_before
    ORDER BY user_id, timestamp, number;

DROP TABLE audit_before;

DROP TRIGGER memories_deleted;
DROP TRIGGER memories_updated;

CREATE TRIGGER memories_deleted
    AFTER DELETE ON memories BEGIN
    INSERT INTO changes VALUES (
        OLD.user_id, coalesce((SELECT max(seq) FROM changes WHERE user_id = OLD.user_id), 0) + 1, OLD.number);
END;

CREATE TRIGGER memories_updated
    AFTER UPDATE OF embedding, scope, tags, valid_from, valid_to, superseded_at, extensions ON memories BEGIN
    INSERT INTO changes VALUES (
        NEW.user_id, coalesce((SELECT max(seq) FROM changes WHERE user_id = NEW.user_id), 0) + 1, NEW.number);
END;

CREATE TRIGGER changes_made
    AFTER INSERT ON changes WHEN NEW.seq % 100 = 0 BEGIN
    DELETE FROM changes WHERE user_id = NEW.user_id AND seq <= NEW.seq - 500;
END;
