-- Outcomes of backups and of restore drills, for /metrics and for whoever asks when the last one was.

create table maintenance_runs (
    id bigint generated always as identity primary key,
    kind text not null,
    started_at timestamptz not null,
    finished_at timestamptz not null default now(),
    succeeded boolean not null,
    size_bytes bigint,
    -- Why it failed, or what was made.
    message text not null,
    constraint maintenance_runs_kind check (kind in ('backup', 'restore-drill'))
);

-- The newest of each.
create index maintenance_runs_newest on maintenance_runs (kind, succeeded, finished_at desc);
