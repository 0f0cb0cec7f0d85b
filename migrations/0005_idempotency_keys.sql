-- The first answer to each request that carried an Idempotency-Key, written in the transaction of what the request did:
-- either both are there or neither. Rows are removed after IDEMPOTENCY_TTL.

create table idempotency_keys (
    -- Byte order: keys are compared by their bytes, and no locale data of the operating system matters.
    key text collate "C" primary key,
    -- Which request the key was used for; another one under the same key is a mistake of the client.
    fingerprint bytea not null,
    created_at timestamptz not null default now(),
    status smallint not null,
    content_type text not null,
    location text,
    etag text,
    body bytea not null,
    constraint idempotency_keys_key check (char_length(key) between 1 and 255),
    constraint idempotency_keys_fingerprint check (octet_length(fingerprint) = 16),
    constraint idempotency_keys_status check (status between 200 and 299)
);

-- The oldest are removed first.
create index idempotency_keys_created_at on idempotency_keys (created_at);
