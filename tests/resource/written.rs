//! `resource new`: one column per argument.

use std::fs;

use proptest::prelude::*;
use pycrudapi::resource::shorthand;
use pycrudapi::resource::sketch::{ColumnSketch, Sketch};

use super::{loaded, program, refused, succeeded};

const VESSELS: [&str; 6] = [
    "new",
    "vessels",
    "name:string:1..150",
    "type:cargo|tanker",
    "tonnage:number:0..:null",
    "built:integer:1800..2100:index",
];

#[test]
fn a_description_is_written_to_the_reported_file_and_never_overwrites_another() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(succeeded(&program(folder.path(), &VESSELS)), "vessels.toml: 4 columns\n");
    let text = fs::read_to_string(folder.path().join("vessels.toml")).expect("written");
    let resource = loaded(&text);
    let rules: Vec<_> = resource.fields().iter().map(|column| (column.name, column.rule)).collect();
    assert_eq!(
        rules,
        [
            ("name", "must be a text of 1 to 150 characters without U+0000"),
            ("type", "must be \"cargo\" or \"tanker\""),
            ("tonnage", "must be a number not below 0, or null"),
            ("built", "must be a whole number between 1800 and 2100"),
        ]
    );
    let again = refused(&program(folder.path(), &VESSELS), 1);
    assert!(again.contains("vessels.toml exists") && again.contains("--force"), "{again}");
    let forced = program(folder.path(), &["new", "vessels", "day:date", "--force"]);
    assert_eq!(succeeded(&forced), "vessels.toml: 1 column\n");
    let shown = succeeded(&program(folder.path(), &["new", "vessels", "day:date", "--output", "-"]));
    assert_eq!(shown, fs::read_to_string(folder.path().join("vessels.toml")).expect("written"));
    let into = ["new", "vessels", "day:date", "--resources-dir", "my resources"];
    assert_eq!(succeeded(&program(folder.path(), &into)), "my resources/vessels.toml: 1 column\n");
    let sql = succeeded(&program(folder.path(), &["sql", "vessels", "--resources-dir", "my resources"]));
    assert!(sql.contains("create table vessels (\n    uuid uuid not null,\n    day date not null,"), "{sql}");
    assert!(sql.ends_with(";\n"), "{sql}");
    let list = succeeded(&program(folder.path(), &["list", "--resources-dir", "my resources"]));
    assert!(list.contains("\nvessels\t1 column\tVessels\n") && list.starts_with("passengers\t8 columns\t"), "{list}");
    assert!(!sql.contains("vessels_history"), "{sql}");
    let kept = ["new", "vessels", "day:date", "--resources-dir", "my resources", "--force", "--history"];
    succeeded(&program(folder.path(), &kept));
    let sql = succeeded(&program(folder.path(), &["sql", "vessels", "--resources-dir", "my resources"]));
    assert!(sql.contains("create table if not exists vessels_history ("), "{sql}");
    let unknown = refused(&program(folder.path(), &["sql", "ships", "--resources-dir", "my resources"]), 1);
    assert!(unknown.contains("the resources are passengers, vessels"), "{unknown}");
}

#[test]
fn every_error_in_the_arguments_is_reported_with_its_argument() {
    let folder = tempfile::tempdir().expect("a folder");
    for (argument, expected) in [
        ("name", "expected name:type[:low..high][:null][:index]"),
        (":string", "expected name:type"),
        ("a:int", "unknown type \"int\"; expected boolean, integer"),
        ("a:string:nul", "unknown option \"nul\"; expected a range low..high, null or index"),
        ("a:string:null:null", "\"null\" is a duplicate; leave one out"),
        ("a:string:1..2:3..4", "\"3..4\" is a second range; leave one out"),
        ("a:string:..", "has no bound; give one"),
        ("a:string:-1..", "\"-1\" is not a length"),
        ("a:string:9..2", "minLength must not exceed maxLength"),
        ("a:string:..20000", "maxLength must be from 1 to 10000"),
        ("a:number:low..", "\"low\" is not a number"),
        ("a:integer:1.5..", "\"1.5\" is not a whole number"),
        ("a:integer:0..99999999999999999999", "exceeds 64 bits; use the type decimal(precision,scale)"),
        ("a:integer:9..1", "minimum 9 is above maximum 1; exchange them"),
        ("a:int16:..70000", "from -32768 to 32767"),
        ("a:decimal(50,2)", "a decimal must have a precision from 1 to 35"),
        ("a:decimal(5,2):0..1000", "must be a decimal(5,2)"),
        ("a:date:2020-01-01..", "a range applies only to numbers and lengths of texts"),
        ("a:boolean:0..1", "a range applies only to numbers and lengths of texts"),
        ("a:x|x", "enum \"x\" is a duplicate"),
        ("a:x|", "must be a text of 1 to 100 characters"),
        ("order:string", "choose another one, such as order_"),
        ("uuid:string", "every row already has the key uuid; leave the column out"),
        ("1st:string", "starting with a letter"),
    ] {
        let said = refused(&program(folder.path(), &["new", "things", "good:string", argument]), 2);
        assert!(said.contains(&format!("{argument:?}: ")) && said.contains(expected), "{argument}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = refused(&program(folder.path(), &["new", "Things", "a:int", "b:string", "b:date", "c:nothing"]), 2);
    for part in ["\"Things\": ", "\"a:int\": ", "\"b:date\": column \"b\" is a duplicate", "\"c:nothing\": "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for name in ["steps", "air-quality", "seeds", "idempotency-keys"] {
        let said = refused(&program(folder.path(), &["new", name, "a:string"]), 2);
        assert!(said.contains("is reserved"), "{name}: {said}");
    }
    refused(&program(folder.path(), &["new", "things"]), 2);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

/// Arguments for columns of every type.
fn argument() -> impl Strategy<Value = String> {
    let options = prop_oneof![Just(""), Just(":null"), Just(":index"), Just(":null:index")];
    let of_type = prop_oneof![
        prop::sample::select(vec![
            "boolean",
            "date",
            "date-time",
            "uuid",
            "string",
            "integer",
            "number",
            "decimal(12,3)"
        ])
        .prop_map(str::to_owned),
        (1..100_u32, 100..1000_u32).prop_map(|(low, high)| format!("string:{low}..{high}")),
        (any::<i16>(), any::<i16>()).prop_map(|(a, b)| format!("int16:{}..{}", a.min(b), a.max(b))),
        any::<i64>().prop_map(|low| format!("int64:{low}..")),
        any::<i32>().prop_map(|high| format!("int32:..{high}")),
        (-1e300..1e300_f64).prop_map(|low| format!("number:{low}..")),
        (-99_999..0_i32).prop_map(|low| format!("decimal(8,3):{low}.125..99999.999")),
        prop::collection::btree_set("[a-zA-Z0-9é][a-z é.-]{0,10}[a-z0-9é]", 2..6)
            .prop_map(|values| values.into_iter().collect::<Vec<_>>().join("|")),
    ];
    (of_type, options).prop_map(|(of_type, options)| format!("{of_type}{options}"))
}

proptest! {
    #[test]
    fn every_generated_description_is_valid(arguments in prop::collection::vec(argument(), 1..20)) {
        let column = |(index, argument): (usize, &String)| ColumnSketch {
            comments: vec!["with\na line break".to_owned()],
            column: shorthand::column(&format!("column{index}:{argument}")).expect("the argument is right"),
        };
        let columns: Vec<_> = arguments.iter().enumerate().map(column).collect();
        let sketch = Sketch { name: "things".to_owned(), comments: vec!["\u{7}".to_owned()], columns, ..Sketch::default() };
        let (text, lines) = sketch.text();
        let resource = loaded(&text);
        prop_assert_eq!(resource.fields().len(), arguments.len());
        for (line, column) in lines.iter().zip(resource.fields()) {
            let name = format!("name = \"{}\"", column.name);
            prop_assert_eq!(text.lines().nth(*line), Some(name.as_str()));
        }
    }
}
