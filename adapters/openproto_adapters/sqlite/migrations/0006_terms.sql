-- The terms of a memory stand in its row, and the index of words keeps no copy of them. It has those of the memories up
-- to the number `indexed`: the terms of new ones are brought into it later, those of many memories at a time.

ALTER TABLE store ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE memories ADD COLUMN terms BLOB NOT NULL DEFAULT x'';

UPDATE memories SET terms = packed_terms((SELECT terms FROM words WHERE rowid = number));

DROP TABLE words;
CREATE VIRTUAL TABLE words USING fts5 (terms, content = '', columnsize = 0, detail = none, tokenize = 'ascii');

INSERT INTO words (rowid, terms) SELECT number, spelled_terms(terms) FROM memories;
UPDATE store SET indexed = coalesce((SELECT max(number) FROM memories), 0);
