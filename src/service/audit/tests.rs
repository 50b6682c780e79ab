//! Verification, export and archive against a real database: what only a look inside can set up. The tables of edits
//! are in `tests/audit.rs`, on the real program.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::clock::Clock;
use crate::crypto::jwt::SigningKey;
use crate::error::{Error, Kind};
use crate::model::audit::{Occasion, Via};
use crate::model::chain::Line;
use crate::model::time::Millis;
use crate::secret::KeyBytes;
use crate::service::keys::MasterSecret;
use crate::service::policy::tests::policy;
use crate::store::Store;

const NOW: i64 = 1_800_000_000;

struct Fixture {
    dir: tempfile::TempDir,
    service: Service,
    clock: Arc<AtomicI64>,
}

impl Fixture {
    /// Events 1-3 are the schema's and the keys'; 4-10 more; a checkpoint each of 6 and 10, a minute between.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, handle) = Clock::fixed(Timestamp::new(NOW));
        let occasion = Occasion { time: clock.millis(), via: Via::Server, ip: None };
        let store = Store::open_and_migrate(&dir.path().join("t.db"), occasion).unwrap();
        let master = MasterSecret::KeyFile(KeyBytes::new([1; 32]));
        let service = Service::open(store, &master, policy(), clock, Via::Server).unwrap();
        service.ensure_signing_keys().unwrap();
        let fixture = Self { dir, service, clock: handle };
        for more in [3, 4] {
            fixture.later(60);
            fixture.events(more);
            fixture.service.checkpoint().unwrap();
        }
        fixture.later(60);
        fixture
    }

    fn later(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn events(&self, count: usize) {
        let occasion = self.service.occasion(&Call::default());
        let write =
            move |tx: &Tx<'_>| (0..count).try_for_each(|_| tx.append(NewEvent::of(EventType::ServerStarted), occasion));
        self.service.store.write(write).unwrap();
    }

    /// Changes the file as somebody who can write it would.
    fn sql(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.dir.path().join("t.db")).unwrap();
        connection
            .execute_batch(
                "PRAGMA foreign_keys = OFF; DROP TRIGGER IF EXISTS audit_log_no_update;
                 DROP TRIGGER IF EXISTS audit_log_no_delete;",
            )
            .unwrap();
        connection.execute_batch(sql).unwrap();
    }

    fn verify(&self) -> Report {
        verify_log(&self.service, &mut |_, _| {}).unwrap()
    }

    #[track_caller]
    fn fits(&self) -> Report {
        let report = self.verify();
        assert_eq!(report.fault, None);
        report
    }

    #[track_caller]
    fn faulty(&self, what: &str) {
        let fault = self.verify().fault.expect("it verifies");
        assert!(fault.contains(what), "{fault}");
        assert_eq!(self.export().unwrap_err().kind(), Kind::Conflict);
        assert!(self.archive(NOW + 9999).unwrap_err().to_string().contains("doesn't verify"));
    }

    fn export(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut line = |line: &str| {
            lines.push(line.to_owned());
            Ok::<_, Error>(())
        };
        export(&self.service, &mut Out { line: &mut line, progress: &mut |_, _| {} })?;
        Ok(lines)
    }

    fn archive(&self, before: i64) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut line = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        let out = &mut Out { line: &mut line, progress: &mut |_, _| {} };
        let draft = write_archive::<Error>(&self.service, Timestamp::new(before), out)?;
        replace_archived(&self.service, &Call::default(), &Admin::maintenance(&self.service), draft)?;
        Ok(lines)
    }

    fn check(&self, lines: &[String]) -> std::result::Result<FileReport, String> {
        verify_file(lines.join("\n").as_bytes(), &public_keys(&self.service).unwrap().0)
    }

    /// The number of the event that a line holds.
    fn ids(lines: &[String]) -> Vec<i64> {
        let id = |line: &String| match Line::parse(line) {
            Ok(Line::Event(link)) => Some(link.id),
            _ => None,
        };
        lines.iter().filter_map(id).collect()
    }
}

#[test]
fn an_untouched_log_fits_and_what_is_not_yet_signed_is_counted() {
    let fixture = Fixture::new();
    assert_eq!(fixture.fits(), Report { rows: 10, checkpoints: 2, not_anchored: 0, fault: None });
    fixture.events(3);
    assert_eq!(fixture.fits(), Report { rows: 13, checkpoints: 2, not_anchored: 3, fault: None });
    fixture.later(10 * 86_400);
    fixture.fits();
    fixture.sql("DELETE FROM audit_checkpoints");
    fixture.faulty("older than a day and no checkpoint");
}

#[test]
fn a_large_log_is_walked_in_batches_while_others_write_and_archive() {
    let fixture = Fixture::new();
    fixture.events(1990);
    for _ in 0..600 {
        fixture.service.checkpoint().unwrap();
    }
    fixture.later(60);
    let (mut told, mut archived) = (Vec::new(), false);
    let report = verify_log(&fixture.service, &mut |done, total| {
        told.push((done, total));
        if done > 700 && !archived {
            archived = true;
            fixture.events(1);
            assert_eq!(fixture.archive(NOW + 61).unwrap().len(), 7);
            fixture.events(1);
        }
    });
    assert_eq!(told.first(), Some(&(256, 2000)));
    // Seven events less, and more by two and by that of archiving; the new walk is of those there were when it began.
    assert_eq!(report.unwrap(), Report { rows: 1997, checkpoints: 602, not_anchored: 1, fault: None });
    assert_eq!(told.last(), Some(&(1997, 1997)));
}

#[test]
fn the_public_half_of_an_audit_key_proves_nothing() {
    let ours = SigningKey::from_seed(&[9; 32]).unwrap();
    let public = crate::model::chain::hex(&ours.public());
    // A key of ours in the place of the house's, and all signed anew with it.
    let resign = |fixture: &Fixture| {
        let connection = rusqlite::Connection::open(fixture.dir.path().join("t.db")).unwrap();
        let named = "SELECT kid FROM signing_keys WHERE public_key = ?1";
        let kid: String = connection.query_row(named, [ours.public()], |row| row.get(0)).unwrap();
        let all: Vec<(i64, i64, [u8; 32], i64)> = connection
            .prepare("SELECT id, count, hash, time FROM audit_checkpoints")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        for (id, count, hash, time) in all {
            let signature = ours.sign_bytes(&Checkpoint::message(count, &hash, time));
            connection
                .execute("UPDATE audit_checkpoints SET kid = ?2, signature = ?3 WHERE id = ?1", (id, &kid, signature))
                .unwrap();
        }
    };
    for swap in [
        format!("UPDATE signing_keys SET public_key = x'{public}' WHERE purpose = 'audit'"),
        format!("UPDATE signing_keys SET public_key = x'{public}', kid = '{}' WHERE purpose = 'audit'", ours.kid()),
        format!(
            "INSERT INTO signing_keys (kid, purpose, public_key, private_key_enc, private_key_nonce, created_at,
                                       signs_from)
             SELECT '{}', 'audit', x'{public}', private_key_enc, private_key_nonce, created_at, signs_from
             FROM signing_keys WHERE purpose = 'audit'",
            ours.kid()
        ),
    ] {
        let fixture = Fixture::new();
        fixture.fits();
        fixture.sql(&swap);
        resign(&fixture);
        fixture.faulty("isn't the one that is sealed in its row");
        assert!(public_keys(&fixture.service).is_err(), "nor is it printed");
    }
    let fixture = Fixture::new();
    fixture.sql("UPDATE signing_keys SET purpose = 'token'");
    let fault = fixture.verify().fault;
    assert!(fault.is_some_and(|fault| fault.contains("none of the audit keys")));
}

#[test]
fn archives_follow_each_other_and_the_log_goes_on() {
    let fixture = Fixture::new();
    assert!(fixture.archive(NOW).unwrap_err().to_string().contains("no event is from before"));
    assert_eq!(fixture.fits().rows, 10, "nothing has gone");

    let first = fixture.archive(NOW + 60).unwrap();
    assert_eq!(Fixture::ids(&first), [1, 2, 3]);
    assert_eq!(fixture.check(&first).unwrap().events, 3);
    assert_eq!(fixture.fits(), Report { rows: 8, checkpoints: 3, not_anchored: 0, fault: None });
    assert_eq!(fixture.service.store.read(|view| view.newest_event_time()).unwrap(), Some(Timestamp::new(NOW + 180)));

    // The event that the first one wrote isn't in the second.
    fixture.later(60);
    let second = fixture.archive(NOW + 61).unwrap();
    assert_eq!(Fixture::ids(&second), [4, 5, 6]);
    assert!(second[0].starts_with(r#"{"anchor":{"count":3,"#), "{}", second[0]);
    assert_eq!(second[0].replace("anchor", "checkpoint"), first[3], "the very one that the first ends with");
    assert_eq!(fixture.check(&second).unwrap().archived, 3);
    assert_eq!(fixture.fits().rows, 6);

    fixture.later(60);
    fixture.events(2);
    fixture.service.checkpoint().unwrap();
    let export = fixture.export().unwrap();
    assert_eq!(Fixture::ids(&export), [7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(export[0].replace("anchor", "checkpoint"), second[4]);
    assert_eq!(fixture.check(&export).unwrap().archived, 6);

    // Everything, its own traces of the former two included.
    fixture.later(60);
    let last = fixture.archive(NOW + 9999).unwrap();
    assert_eq!(fixture.check(&last).unwrap().events, 8);
    assert_eq!(fixture.fits(), Report { rows: 1, checkpoints: 1, not_anchored: 0, fault: None });
    fixture.events(1);
    assert_eq!(Fixture::ids(&fixture.export().unwrap()), [15, 16]);
}

#[test]
fn the_log_is_cut_where_the_first_event_is_not_older() {
    let fixture = Fixture::new();
    // The clock is set back: what comes now is older than what stands before it.
    fixture.later(-150);
    fixture.events(2);
    let file = fixture.archive(NOW + 60).unwrap();
    assert_eq!(Fixture::ids(&file), [1, 2, 3], "no event that isn't older goes, though older ones stay");
    fixture.fits();
    fixture.check(&file).unwrap();
}

#[test]
fn a_draft_of_a_log_that_was_archived_meanwhile_changes_nothing() {
    let fixture = Fixture::new();
    let draft = write_archive::<Error>(
        &fixture.service,
        Timestamp::new(NOW + 60),
        &mut Out { line: &mut |_| Ok(()), progress: &mut |_, _| {} },
    );
    fixture.later(1);
    fixture.archive(NOW + 61).unwrap();
    let admin = Admin::maintenance(&fixture.service);
    let refused = replace_archived(&fixture.service, &Call::default(), &admin, draft.unwrap());
    assert_eq!(refused.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(fixture.fits().rows, 5);
}

#[test]
fn a_checkpoint_is_no_anchor() {
    let drop_first = "DELETE FROM audit_log WHERE id <= 6; DELETE FROM audit_checkpoints WHERE last_id < 6;
                      UPDATE audit_checkpoints SET anchor = 1 WHERE last_id = 6;";
    let fixture = Fixture::new();
    fixture.sql(drop_first);
    fixture.faulty("the events before it are missing");

    // Behind a true anchor, whose event is still there.
    let fixture = Fixture::new();
    fixture.archive(NOW + 60).unwrap();
    fixture.fits();
    fixture.sql(drop_first);
    fixture.faulty("the events before it are missing");

    // With an event that says so, but that nobody has signed.
    let fixture = Fixture::new();
    fixture.clock.store((NOW + 60) * 1000, Ordering::SeqCst);
    let occasion = fixture.service.occasion(&Call::default());
    fixture.service.store.write(move |tx| tx.append(NewEvent::of(EventType::AuditArchived), occasion)).unwrap();
    fixture.sql(drop_first);
    fixture.faulty("the events before it are missing");

    // In a file: what an export ended with, in the place of the events that it held.
    let fixture = Fixture::new();
    let early = fixture.export().unwrap();
    fixture.later(60);
    fixture.events(2);
    let mut late = fixture.export().unwrap();
    fixture.check(&late).unwrap();
    late.splice(..10, [early[10].replace("checkpoint", "anchor")]);
    assert_eq!(
        fixture.check(&late).unwrap_err(),
        "line 1: the anchor wasn't made by archiving: the events before it are missing"
    );
}

#[test]
fn a_log_that_was_emptied_is_no_log() {
    let fixture = Fixture::new();
    fixture.events(3);
    fixture.sql("DELETE FROM audit_log; DELETE FROM audit_checkpoints");
    fixture.faulty("neither an event nor an anchor");
    assert!(fixture.export().unwrap_err().to_string().contains("neither an event nor an anchor"));
    // And one that goes on after it begins with the wrong event.
    fixture.events(2);
    fixture.faulty("event 1 isn't the making of the database");
    assert!(fixture.export().is_err());
}

#[test]
fn archiving_waits_for_a_second_of_its_own() {
    let fixture = Fixture::new();
    fixture.service.checkpoint().unwrap();
    let now = fixture.service.now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(60));
            fixture.later(1);
        });
        fixture.archive(NOW + 60).unwrap();
    });
    let anchor = fixture.service.store.read(|view| view.anchors()).unwrap().remove(0).checkpoint.unwrap();
    assert_eq!(anchor.time, now.plus(1).seconds());
    fixture.fits();
}

#[test]
fn anchors_are_checked() {
    for (sql, what) in [
        ("DELETE FROM audit_checkpoints WHERE anchor = 1", "events 1 to 3 are missing"),
        ("DELETE FROM audit_checkpoints WHERE anchor = 0", "the events before it are missing"),
        ("UPDATE audit_checkpoints SET hash = zeroblob(32) WHERE anchor = 1", "the anchor has a bad signature"),
        ("UPDATE audit_checkpoints SET count = 4, last_id = 4 WHERE anchor = 1", "the anchor has a bad signature"),
        ("UPDATE audit_checkpoints SET last_id = 2 WHERE anchor = 1", "the anchor is of 3 events"),
        ("UPDATE audit_checkpoints SET time = 5 WHERE anchor = 1", "the anchor has a bad signature"),
        ("UPDATE audit_checkpoints SET kid = 'x' WHERE anchor = 1", "the anchor is signed by x"),
        ("UPDATE audit_checkpoints SET anchor = 1 WHERE last_id = 6", "there are 2 anchors"),
        ("DELETE FROM audit_log WHERE id = 4", "event 4 is missing"),
        ("UPDATE audit_log SET id = 3 WHERE id = 4", "event 3 stands where event 4 should"),
        ("UPDATE audit_log SET id = -7 WHERE id = 11", "event -7 stands where event 4 should"),
    ] {
        let fixture = Fixture::new();
        fixture.archive(NOW + 60).unwrap();
        fixture.fits();
        fixture.sql(sql);
        fixture.faulty(what);
    }
}

#[test]
fn after_a_rotation_of_the_audit_key_everything_still_verifies() {
    let fixture = Fixture::new();
    let archive = fixture.archive(NOW + 60).unwrap();
    assert_eq!(public_keys(&fixture.service).unwrap().0.len(), 1);

    fixture.later(60);
    let now = fixture.service.now().seconds();
    fixture.sql(&format!("UPDATE signing_keys SET retired_at = {now} WHERE purpose = 'audit'"));
    fixture.service.ensure_signing_keys().unwrap();
    let current = fixture.service.checkpoint().unwrap().kid;
    fixture.fits();
    let keys = public_keys(&fixture.service).unwrap().0;
    assert_eq!((keys.len(), &keys[0].kid), (2, &current));
    let export = fixture.export().unwrap();
    fixture.check(&archive).unwrap();
    fixture.check(&export).unwrap();

    // Revoked, it vouches for nothing from then on; what it signed before stands. An export is of the new key alone.
    fixture.later(60);
    let now = fixture.service.now().seconds();
    fixture.sql(&format!("UPDATE signing_keys SET revoked_at = {now} WHERE retired_at IS NOT NULL"));
    fixture.fits();
    let export = fixture.export().unwrap();
    assert_eq!(public_keys(&fixture.service).unwrap().0.len(), 1);
    fixture.check(&export).unwrap();
    assert!(fixture.check(&archive).unwrap_err().contains("none of the audit keys"));
    fixture.sql(&format!("UPDATE signing_keys SET revoked_at = {NOW} WHERE retired_at IS NOT NULL"));
    fixture.faulty("after that key was revoked");
}

#[test]
fn keys_are_read_strictly() {
    let key = SigningKey::from_seed(&[9; 32]).unwrap();
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{}","x":"X"}}"#, key.kid());
    let x = {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.public())
    };
    let jwk = jwk.replace("\"X\"", &format!("\"{x}\""));
    let public = crate::model::token::PublicKey { kid: key.kid().to_owned(), bytes: key.public() };
    assert_eq!(read_keys(&jwk), Ok(vec![public.clone()]));
    assert_eq!(read_keys(&jwk.replace(&format!(r#""kid":"{}","#, key.kid()), "")), Ok(vec![public.clone()]));
    assert_eq!(read_keys(&format!(r#"{{"keys":[{jwk},{jwk}]}}"#)), Ok(vec![public.clone(), public]));
    for bad in [
        jwk.replace("OKP", "EC"),
        jwk.replace("Ed25519", "X25519"),
        jwk.replace(key.kid(), "other"),
        jwk.replace(&x, &x[1..]),
        jwk.replace("\"kty\"", "\"kty\":\"OKP\",\"kty\""),
        r#"{"keys":[]}"#.into(),
        r#"{"keys":{}}"#.into(),
        "[]".into(),
        "x".into(),
    ] {
        assert!(read_keys(&bad).is_err(), "{bad}");
    }
}

#[test]
fn the_newest_second_decides_what_is_old() {
    let fixture = Fixture::new();
    fixture.sql("DELETE FROM audit_checkpoints");
    fixture.clock.store(Millis::new((NOW + 86_400) * 1000).get(), Ordering::SeqCst);
    fixture.fits();
    fixture.later(1);
    fixture.faulty("older than a day and no checkpoint");
}
