-- Which memories of each user changed, the latest 500: what a process keeps of a user for searching is brought up to
-- date by them. Triggers write them, but where a memory is new: a trigger lets FTS5 write its words to the file row by
-- row, which takes longer than all else, so that `insert` in statements.py writes that entry.

CREATE TABLE changes (
    user_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,          -- of the memory, which may be gone
    PRIMARY KEY (user_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER memories_deleted
    AFTER DELETE ON memories BEGIN
    INSERT INTO changes VALUES (
        OLD.user_id, coalesce((SELECT max(seq) FROM changes WHERE user_id = OLD.user_id), 0) + 1, OLD.number);
    DELETE FROM changes
        WHERE user_id = OLD.user_id AND seq <= (SELECT max(seq) FROM changes WHERE user_id = OLD.user_id) - 500;
END;

CREATE TRIGGER memories_updated
    AFTER UPDATE OF embedding, scope, tags, valid_from, valid_to, superseded_at, extensions ON memories BEGIN
    INSERT INTO changes VALUES (
        NEW.user_id, coalesce((SELECT max(seq) FROM changes WHERE user_id = NEW.user_id), 0) + 1, NEW.number);
    DELETE FROM changes
        WHERE user_id = NEW.user_id AND seq <= (SELECT max(seq) FROM changes WHERE user_id = NEW.user_id) - 500;
END;
