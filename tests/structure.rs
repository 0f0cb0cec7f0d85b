//! Imports are acyclic: no file imports, directly or indirectly, a file that imports it, and no part imports one above it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The parts of the crate, from the top down; parts on the same line do not import each other.
const PARTS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app", "doctor"],
    &["docs", "nginx", "telemetry"],
    &["config", "pages"],
    &["air_quality", "identity", "steps", "tokens"],
    &["resource"],
    &["ops", "server"],
    &["idempotency"],
    &["http"],
    &["auth", "backup"],
    &["db"],
    &["csv", "trace"],
    &["duration", "hexadecimal", "log_output", "masked", "shell", "short_file", "shutdown", "staggered"],
];

/// The files below src, with their text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                found.push((path, text));
            }
        }
    }
    found
}

/// Modules by their path in the crate, with their source.
fn modules() -> BTreeMap<Vec<String>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |(path, text): &(PathBuf, String)| (name(path.strip_prefix(&root).expect("below it")), code(text));
    let mut found: BTreeMap<_, _> = sources().iter().map(module).collect();
    // Tests and simulated components are not compiled into the program.
    found.retain(|name, _| !name.iter().any(|part| part == "tests" || part == "simulation") && *name != ["lib"]);
    found
}

fn name(path: &Path) -> Vec<String> {
    let path =
        if path.ends_with("mod.rs") { path.parent().expect("a folder").to_owned() } else { path.with_extension("") };
    path.iter().map(|part| part.to_str().expect("a name").to_owned()).collect()
}

/// The source compiled into the program: without comments and tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().expect("one part at least");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every path after `head`, with groups expanded.
fn paths(mut text: &str, head: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = head.to_vec();
    loop {
        let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        match word {
            "" | "self" => {}
            "super" => drop(path.pop()),
            word => path.push(word.to_owned()),
        }
        let Some(behind) = rest.strip_prefix("::") else { break };
        if let Some(group) = behind.strip_prefix('{') {
            let (mut depth, mut begin) = (0, 0);
            for (at, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        paths(group[begin..at].trim(), &path, found);
                        begin = at + 1;
                        if letter == '}' {
                            return;
                        }
                    }
                    _ => {}
                }
            }
            return;
        }
        text = behind;
    }
    found.push(path);
}

/// Whether the following text belongs to a longer name or path.
fn is_inside(before: &str) -> bool {
    before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':')
}

/// The modules that each module imports.
fn imports() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let modules = modules();
    let imported = |(module, text): (&Vec<String>, &String)| {
        let mut found = Vec::new();
        for (head, from) in [("crate::", Vec::new()), ("super::", module[..module.len() - 1].to_vec())] {
            for (at, _) in text.match_indices(head) {
                if !is_inside(&text[..at]) {
                    paths(&text[at + head.len() - "::".len()..], &from, &mut found);
                }
            }
        }
        // Paths may continue from an imported module: `list::openapi::describe`.
        for path in found.clone().into_iter().filter(|path| modules.contains_key(path)) {
            let head = format!("{}::", path.last().expect("a module has a name"));
            for (at, _) in text.match_indices(&head) {
                if !is_inside(&text[..at]) {
                    paths(&text[at + head.len() - "::".len()..], &path, &mut found);
                }
            }
        }
        let known = found.into_iter().filter_map(|mut path| {
            while !path.is_empty() && !modules.contains_key(&path) {
                path.pop();
            }
            (!path.is_empty() && path != *module).then_some(path)
        });
        (module.clone(), known.collect())
    };
    modules.iter().map(imported).collect()
}

#[test]
fn no_part_imports_one_above_or_beside_it() {
    let level = |part: &str| {
        PARTS.iter().position(|level| level.contains(&part)).unwrap_or_else(|| panic!("src/{part} is missing in PARTS"))
    };
    let wrong: Vec<String> = imports()
        .iter()
        .flat_map(|(module, imported)| imported.iter().map(move |other| (module, other)))
        .filter(|(module, other)| module[0] != other[0] && level(&module[0]) >= level(&other[0]))
        .map(|(module, other)| format!("{} imports {}", module.join("::"), other.join("::")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let mut imports = imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 100, "the imports are no longer found");
    // A file that imports no remaining file, or is imported by none, is not part of a cycle.
    loop {
        let before = imports.len();
        let left: BTreeSet<_> = imports.keys().cloned().collect();
        imports.retain(|_, imported| !imported.is_disjoint(&left));
        let imported: BTreeSet<_> = imports.values().flatten().cloned().collect();
        imports.retain(|module, _| imported.contains(module));
        if imports.len() == before {
            break;
        }
    }
    let text = imports.iter().map(|(module, imported)| {
        let left = imported.iter().filter(|other| imports.contains_key(*other)).map(|other| other.join("::"));
        format!("{} imports {}", module.join("::"), left.collect::<Vec<_>>().join(", "))
    });
    assert!(imports.is_empty(), "these import each other:\n{}", text.collect::<Vec<_>>().join("\n"));
}

#[test]
fn files_and_lines_of_comments_are_short() {
    let long: Vec<String> = sources()
        .into_iter()
        .flat_map(|(path, text)| {
            let is_long = |line: &str| line.trim_start().starts_with("//") && line.chars().count() > 128;
            let lines = text.lines().enumerate().filter(|(_, line)| is_long(line));
            let lines = lines.map(|(index, _)| format!("{}:{}: over 128 columns", path.display(), index + 1));
            let count = text.lines().count();
            lines
                .chain((count > 400).then(|| format!("{}: {count} lines, over 400", path.display())))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_map_of_the_architecture_has_every_folder() {
    let map =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/architecture.md")).expect("the architecture");
    let part = |path: &Path| {
        let mut components = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).expect("below it").iter();
        components.next().filter(|_| components.next().is_some()).map(|part| part.to_string_lossy().into_owned())
    };
    let folders: BTreeSet<String> = sources().iter().filter_map(|(path, _)| part(path)).collect();
    let missing: Vec<_> = folders.iter().filter(|folder| !map.contains(&format!("`src/{folder}"))).collect();
    assert!(folders.len() > 20 && missing.is_empty(), "{missing:?}");
}

#[test]
fn log_messages_that_the_runbooks_search_for_exist() {
    let runbooks = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks.md")).expect("the runbooks");
    let sources: String = modules().into_values().collect();
    let searched: Vec<&str> =
        runbooks.split("LOGS | grep '").skip(1).filter_map(|behind| behind.split('\'').next()).collect();
    assert!(searched.len() >= 2, "{searched:?}");
    for message in searched {
        assert!(sources.contains(message), "no message has {message:?}");
    }
}
