-- What operators set, and the audit of what they did. The audit only grows.

CREATE TABLE operator_audit (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     bigint NOT NULL,
    by     text NOT NULL,
    ip     text NOT NULL,
    what   text NOT NULL,
    target text NOT NULL,
    detail text NOT NULL
);

CREATE FUNCTION stormwire_operator_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'operator_audit only grows';
END $$;
CREATE TRIGGER operator_audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_audit
FOR EACH STATEMENT EXECUTE FUNCTION stormwire_operator_audit_stays();

CREATE TABLE settings (
    kind    text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    body    text NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (kind, name)
);

-- The lock is held to the end of the transaction: lines are committed in the order of their numbers, and of
-- two who change one document the second sees what the first has done.
CREATE FUNCTION stormwire_note_operator(p_at bigint, p_by text, p_ip text, p_what text, p_target text, p_detail text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(823114, 3);
    INSERT INTO operator_audit (at, by, ip, what, target, detail)
    VALUES (p_at, p_by, p_ip, p_what, p_target, p_detail) RETURNING id INTO number;
    RETURN number;
END $$;

-- Writes a document, or removes it where there is no body, with its line; null if it is not `p_expected`.
CREATE FUNCTION stormwire_set(p_kind text, p_name text, p_body text, p_expected bigint,
    p_at bigint, p_by text, p_ip text, p_what text, p_target text, p_detail text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
    found_version bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(823114, 3);
    SELECT version INTO found_version FROM settings WHERE kind = p_kind AND name = p_name;
    IF p_expected IS NOT NULL AND coalesce(found_version, 0) <> p_expected THEN
        RETURN NULL;
    END IF;
    number := stormwire_note_operator(p_at, p_by, p_ip, p_what, p_target, p_detail);
    IF p_body IS NULL THEN
        DELETE FROM settings WHERE kind = p_kind AND name = p_name;
    ELSE
        INSERT INTO settings (kind, name, body, version) VALUES (p_kind, p_name, p_body, number)
        ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body, version = excluded.version;
    END IF;
    RETURN number;
END $$;
