//! The documented API, kept as a file so that a change of it is seen in review.
//! After a change that is meant: `UPDATE_OPENAPI=1 cargo test -p callbox-server --test it openapi`.

#[test]
fn the_document_is_what_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let now = callbox_server::api::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == now,
        "docs/openapi.json is not what is served; if the change is meant, run \
         UPDATE_OPENAPI=1 cargo test -p callbox-server --test it openapi"
    );
}
