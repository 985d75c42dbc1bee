-- Which rules the words were made by (openproto.stores.words.RULES): what was indexed by others is not found by these.

ALTER TABLE store ADD COLUMN rules INTEGER NOT NULL DEFAULT 2;
UPDATE store SET rules = 1 WHERE EXISTS (SELECT 1 FROM memories);
