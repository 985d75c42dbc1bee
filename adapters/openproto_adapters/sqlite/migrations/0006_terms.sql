-- The index of words keeps no copy of what it has: the terms of each memory, 8 bytes each and mixed with its user, stand
-- in a table. The index has the memories up to the number `indexed`; new ones are brought into it later, many at a time,
-- and those of a large batch have no terms until then.

CREATE TABLE terms (
    number INTEGER PRIMARY KEY,       -- of the memory
    packed BLOB NOT NULL
) STRICT;

INSERT INTO terms (number, packed) SELECT rowid, packed_terms(terms) FROM words;

DROP TABLE words;
CREATE VIRTUAL TABLE words USING fts5 (terms, content = '', columnsize = 0, detail = none, tokenize = 'ascii');
INSERT INTO words (rowid, terms) SELECT number, spelled_terms(packed) FROM terms;

ALTER TABLE store ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;
UPDATE store SET indexed = coalesce((SELECT max(number) FROM memories), 0);
