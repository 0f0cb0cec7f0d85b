-- Tokens of the API's own, and the generation that tells whether what a server knows of them still holds.

create table api_tokens (
    id uuid primary key,
    name text not null,
    -- SHA-256; the token itself is stored nowhere.
    hash bytea not null,
    -- As src/auth/scope.rs writes them.
    scopes text not null,
    created_at timestamptz not null default now(),
    -- The principal; null for whoever has access to the database.
    created_by text,
    expires_at timestamptz,
    -- In seconds, as it was made for; a rotation ends a token sooner, and its successor has the whole again. Null for no end.
    lifetime double precision,
    revoked_at timestamptz,
    revoked_by text,
    -- Written now and then, for many uses at once.
    last_used_at timestamptz,
    uses bigint not null default 0,
    constraint api_tokens_name check (char_length(name) between 1 and 100),
    constraint api_tokens_hash check (octet_length(hash) = 32)
);

create unique index api_tokens_hash_idx on api_tokens (hash);

-- One row whose value changes with every change of what a token may do, in the same transaction: whoever reads both in one
-- statement knows which state was read. Random, so that a restored database never repeats one that stood for other tokens.
create table api_tokens_generation (
    one_row boolean primary key default true,
    generation uuid not null,
    constraint api_tokens_generation_one_row check (one_row)
);

insert into api_tokens_generation (generation) values (gen_random_uuid());

-- By a trigger, so that a change by hand counts too. The search path is fixed here, because a restore runs with an empty one.
create function api_tokens_changed() returns trigger language plpgsql set search_path from current as $$
begin
    update api_tokens_generation set generation = gen_random_uuid();
    notify api_tokens_changed;
    return null;
end
$$;

create trigger api_tokens_changed
    after insert or delete or truncate or update of id, hash, scopes, expires_at, revoked_at on api_tokens
    for each statement execute function api_tokens_changed();
