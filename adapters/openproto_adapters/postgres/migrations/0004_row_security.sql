-- The users that a statement acts for come as a parameter of this domain (row_security.py): the check puts them into a
-- setting of the transaction before anything is planned or run.
CREATE DOMAIN {schema}.acting_for AS text CHECK (set_config('openproto.users', value, true) IS NOT NULL);

-- Says so where no user is named, as by clients that know nothing of this: finding nothing would look like an answer.
CREATE FUNCTION {schema}.acting_users() RETURNS text[] LANGUAGE plpgsql STABLE PARALLEL SAFE AS $users$
DECLARE users text := nullif(current_setting('openproto.users', true), '');
BEGIN
    IF users IS NULL THEN
        RAISE EXCEPTION 'the statement does not say for which users it acts'
            USING HINT = 'Upgrade a client older than these tables. In psql: SET openproto.users = ''{"one user id"}'', '
                'or ''*'' for everybody.';
    END IF;
    RETURN CASE users WHEN '*' THEN '{}' ELSE users END;
END $users$;

-- Subqueries are run once for a scan, where the functions themselves would be called for each row. Most statements act
-- for one user, and comparing with an array of one takes five times as long.
CREATE POLICY acting_users ON {schema}.memories USING (
    user_id = (SELECT ({schema}.acting_users())[1]) OR user_id = ANY ((SELECT {schema}.acting_users())::text[])
    OR (SELECT current_setting('openproto.users', true)) = '*');
CREATE POLICY acting_users ON {schema}.keys USING (
    user_id = (SELECT ({schema}.acting_users())[1]) OR user_id = ANY ((SELECT {schema}.acting_users())::text[])
    OR (SELECT current_setting('openproto.users', true)) = '*');
CREATE POLICY acting_users ON {schema}.audit USING (
    user_id = (SELECT ({schema}.acting_users())[1]) OR user_id = ANY ((SELECT {schema}.acting_users())::text[])
    OR (SELECT current_setting('openproto.users', true)) = '*');

-- Behind a policy an index serves only comparisons that cannot give a value away, and the functions of JSON can: so the
-- place of a turn stands in columns.
ALTER TABLE {schema}.memories ADD COLUMN conversation uuid, ADD COLUMN turn integer;

CREATE FUNCTION {schema}.place_turn() RETURNS trigger LANGUAGE plpgsql AS $place$
BEGIN
    NEW.conversation := md5(NEW.extensions #>> '{x-openproto,conversation}')::uuid;
    NEW.turn := CASE WHEN json_typeof(NEW.extensions #> '{x-openproto,turn}') = 'number'
            AND NEW.extensions #>> '{x-openproto,turn}' ~ '^[0-9]{1,9}$'
        THEN (NEW.extensions #>> '{x-openproto,turn}')::integer END;
    RETURN NEW;
END $place$;
CREATE TRIGGER place_new_turn BEFORE INSERT ON {schema}.memories FOR EACH ROW
    WHEN (NEW.extensions #>> '{x-openproto,conversation}' IS NOT NULL) EXECUTE FUNCTION {schema}.place_turn();
CREATE TRIGGER place_changed_turn BEFORE UPDATE OF extensions ON {schema}.memories FOR EACH ROW
    EXECUTE FUNCTION {schema}.place_turn();

UPDATE {schema}.memories SET extensions = extensions WHERE extensions #>> '{x-openproto,conversation}' IS NOT NULL;
DROP INDEX {schema}.memories_turns;
CREATE INDEX memories_turns ON {schema}.memories (user_id, conversation, turn) INCLUDE (id)
    WHERE conversation IS NOT NULL;
