-- Spreads the tables over the workers of a Citus cluster, each user's rows together. What is done already is left alone.
SELECT set_config('citus.multi_shard_modify_mode', 'sequential', true);
-- The trigger changes nothing but the row that is written, so it does on a shard what it does on the table.
SELECT set_config('citus.enable_unsafe_triggers', 'on', true);

DO $distribute$
DECLARE
    name text;
BEGIN
    -- There is no index for one large user on a cluster.
    FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = '{schema}.memories'::regclass AND tgname LIKE 'large\_%' LOOP
        EXECUTE format('DROP TRIGGER %I ON {schema}.memories', name);
    END LOOP;
    FOR name IN SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = '{schema}.memories'::regclass AND relname LIKE 'large\_%' LOOP
        EXECUTE format('DROP INDEX {schema}.%I', name);
    END LOOP;
    TRUNCATE {schema}.large_users, {schema}.postings;
    ALTER TABLE {schema}.large_users DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
    ALTER TABLE {schema}.postings DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;

    IF NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = '{schema}.store'::regclass) THEN
        PERFORM create_reference_table('{schema}.store');
    END IF;
    FOREACH name IN ARRAY ARRAY['memories', 'keys', 'audit'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = ('{schema}.' || name)::regclass);
        -- Citus distributes no table whose policies hold subqueries.
        EXECUTE format('DROP POLICY IF EXISTS acting_users ON {schema}.%I', name);
        EXECUTE format('ALTER TABLE {schema}.%I DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', name);
        IF name = 'audit' THEN
            -- Shards are written directly, and have no sequence.
            ALTER TABLE {schema}.audit ALTER number DROP IDENTITY IF EXISTS;
            ALTER TABLE {schema}.audit ALTER number
                SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
        END IF;
        PERFORM create_distributed_table(
            '{schema}.' || name, 'user_id',
            colocate_with := CASE name WHEN 'memories' THEN 'none' ELSE '{schema}.memories' END);
    END LOOP;
END $distribute$;

-- Returns the numbers of the shards that hold the user, and of the store, on this server. Who writes keeps them from
-- being moved until the end of the transaction, as Citus does for its own statements; only the owner may.
CREATE OR REPLACE FUNCTION {schema}.hold_shards(user_id text, writes boolean) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $hold$
DECLARE
    shard bigint := get_shard_id_for_distribution_column('{schema}.memories', user_id);
BEGIN
    IF writes THEN
        PERFORM lock_shard_metadata(5, ARRAY[shard]);
    END IF;
    IF shard <> get_shard_id_for_distribution_column('{schema}.memories', user_id) OR NOT EXISTS (
        SELECT FROM pg_dist_placement JOIN pg_dist_local_group USING (groupid) WHERE shardid = shard
    ) THEN
        RAISE serialization_failure USING MESSAGE = 'the shard has moved to another server';
    END IF;
    RETURN ARRAY[
        shard,
        get_shard_id_for_distribution_column('{schema}.keys', user_id),
        get_shard_id_for_distribution_column('{schema}.audit', user_id),
        (SELECT shardid FROM pg_dist_shard WHERE logicalrelid = '{schema}.store'::regclass)
    ];
END $hold$;

-- Runs a statement about one user on the server that holds it, as one transaction, on the shards themselves: Citus would
-- make a step of a distributed transaction of each of its parts. Vectors come as what they are, for as text each of them
-- would be written and read several times.
CREATE OR REPLACE FUNCTION {schema}.run(
    user_id text, writes boolean, statement text, arguments text[], vectors halfvec[], words sparsevec[],
    more_words sparsevec[]
) RETURNS SETOF record LANGUAGE plpgsql SET jit = off SET plan_cache_mode = force_generic_plan AS $run$
DECLARE
    shards bigint[] := {schema}.hold_shards(user_id, writes);
    planned text;
BEGIN
    statement := replace(replace(replace(replace(statement, '<memories>', shards[1]::text),
        '<keys>', shards[2]::text), '<audit>', shards[3]::text), '<store>', shards[4]::text);
    IF cardinality(vectors) > 1 OR cardinality(words) > 2 THEN  -- a batch costs more to write as text than to plan
        RETURN QUERY EXECUTE statement USING arguments, vectors, words, more_words;
        RETURN;
    END IF;
    planned := 'openproto_' || md5(statement);
    IF NOT EXISTS (SELECT FROM pg_prepared_statements AS p WHERE p.name = planned) THEN
        IF (SELECT count(*) FROM pg_prepared_statements AS p WHERE starts_with(p.name, 'openproto_')) >= 100 THEN
            DEALLOCATE ALL;
        END IF;
        EXECUTE format('PREPARE %1$I (text[], %2$s, %3$s, %3$s) AS %4$s',
            planned, pg_typeof(vectors), pg_typeof(words), statement);
    END IF;
    RETURN QUERY EXECUTE format('EXECUTE %I (%L, %L, %L, %L)', planned, arguments, vectors, words, more_words);
END $run$;

SELECT create_distributed_function('{schema}.hold_shards(text, boolean)');
SELECT create_distributed_function(
    '{schema}.run(text, boolean, text, text[], halfvec[], sparsevec[], sparsevec[])', 'user_id',
    colocate_with := '{schema}.memories', force_delegation := true);
