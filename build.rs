//! Unpacks `sqlx-data.json`, the checked descriptions of all queries, into the form that sqlx's
//! macros read, and tells them to look nowhere else: builds need no database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use serde_json::Value;

fn main() {
    println!("cargo::rerun-if-changed=sqlx-data.json");
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-env-changed=SQLX_PREPARE");
    if env::var_os("SQLX_PREPARE").is_some() {
        return; // scripts/sqlx-data is asking the database itself
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("sqlx");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).expect("OUT_DIR is writable");
    let text = fs::read_to_string("sqlx-data.json").expect("sqlx-data.json is readable");
    let data: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&text).expect("sqlx-data.json is valid");
    for (engine, queries) in data {
        for (hash, mut query) in queries {
            query["db_name"] = engine.clone().into();
            query["hash"] = hash.clone().into();
            let file = out.join(format!("query-{hash}.json"));
            assert!(!file.exists(), "two engines share the text of a query: {}", query["query"]);
            fs::write(file, query.to_string()).expect("OUT_DIR is writable");
        }
    }
    println!("cargo::rustc-env=SQLX_OFFLINE=true");
    println!("cargo::rustc-env=SQLX_OFFLINE_DIR={}", out.display());
}
