//! Conversations with a scripted other side.

use std::io::{BufRead, BufReader};

use super::*;

const SOON: Duration = Duration::from_secs(10);
const AT_ONCE: Duration = Duration::from_millis(50);

/// A console whose other side is run by `play`.
fn with(play: impl FnOnce(UnixStream) + Send + 'static) -> Console {
    let (here, there) = UnixStream::pair().expect("pair");
    std::thread::spawn(move || play(there));
    Console::over(here.try_clone().expect("clone"), here, Vec::new())
}

fn says(text: &'static str) -> Console {
    with(move |mut there| {
        there.write_all(text.as_bytes()).expect("write");
        std::thread::sleep(SOON);
    })
}

/// A real shell behind a getty that knows one user: echoes what is typed, as a terminal does.
fn shell(mut there: UnixStream) {
    let mut lines = BufReader::new(there.try_clone().expect("clone")).lines();
    let mut line = move || lines.next().and_then(Result::ok);
    there
        .write_all(b"[  OK  ] Started getty\r\n\r\nDebian GNU/Linux 12 db1 ttyS0\r\n\r\ndb1 login: ")
        .expect("say");
    let user = line().expect("user");
    there.write_all(b"Password: ").expect("say");
    if (user.as_str(), line().expect("password").as_str()) != ("root", "debian") {
        there
            .write_all(b"\r\nLogin incorrect\r\ndb1 login: ")
            .expect("say");
        return std::thread::sleep(SOON);
    }
    there.write_all(b"\r\n\x1b[?2004hroot@db1:~# ").expect("say");
    while let Some(typed) = line() {
        there
            .write_all(format!("{typed}\r\n\x1b[?2004l").as_bytes())
            .expect("echo");
        let output = std::process::Command::new("sh")
            .args(["-c", &typed])
            .output()
            .expect("sh")
            .stdout;
        let output = String::from_utf8_lossy(&output).replace('\n', "\r\n");
        there
            .write_all(format!("{output}\x1b[?2004hroot@db1:~# ").as_bytes())
            .expect("say");
    }
}

#[test]
fn the_first_of_several_words_ends_the_wait_and_the_rest_stays() {
    let mut console = says("one two three");
    assert_eq!(
        console.wait_for(&["three", "two"], SOON).expect("two"),
        (1, "one ".into())
    );
    assert_eq!(
        console.wait_for(&["three"], SOON).expect("three"),
        (0, " ".into())
    );
}

#[test]
fn a_word_cut_by_an_escape_sequence_is_still_found() {
    let mut console = says("lo\x1b[0mgin\x1b[1m: ");
    console.wait_for(&["login: "], SOON).expect("found");
}

#[test]
fn silence_names_what_was_awaited_and_what_was_seen() {
    let text = says("Loading\n")
        .wait_for(&["login: "], AT_ONCE)
        .expect_err("late")
        .to_string();
    assert!(text.contains("login: ") && text.contains("Loading"), "{text}");
}

#[test]
fn a_closed_line_is_told_from_a_silent_one() {
    let mut console = with(|mut there| there.write_all(b"bye").expect("write"));
    assert!(matches!(
        console.wait_for(&["login: "], SOON),
        Err(ConsoleError::Ended { .. })
    ));
    console.wait_for_end(AT_ONCE).expect("ended");
}

#[test]
fn a_line_that_stays_open_is_reported() {
    assert!(matches!(
        says("hi").wait_for_end(AT_ONCE),
        Err(ConsoleError::Late { .. })
    ));
}

#[test]
fn a_kernel_that_panics_ends_the_wait_at_once() {
    let mut console = says("[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n");
    let error = console
        .wait_for(&["login: "], Duration::from_secs(3600))
        .expect_err("panic")
        .to_string();
    assert!(error.contains("Unable to mount root"), "{error}");
}

#[test]
fn a_person_logs_in_and_asks() {
    let mut console = with(shell);
    console.log_in("root", "debian", SOON).expect("login");
    let answer = console.ask("printf 'a\\nb'", SOON).expect("answer");
    assert_eq!(
        answer,
        Answer {
            text: "a\nb".into(),
            status: 0
        }
    );
    let answer = console
        .ask("echo gone >&2; exit_with() { return 7; }; exit_with", SOON)
        .expect("answer");
    assert_eq!(
        answer,
        Answer {
            text: "gone".into(),
            status: 7
        }
    );
}

#[test]
fn the_echo_of_a_long_question_is_not_taken_for_its_answer() {
    let mut console = with(shell);
    console.log_in("root", "debian", SOON).expect("login");
    let long = format!("true '<ask' '<end' {}; echo yes", "x".repeat(400));
    assert_eq!(console.ask(&long, SOON).expect("answer").text, "yes");
}

#[test]
fn a_wrong_password_is_told_at_once() {
    let mut console = with(shell);
    assert!(matches!(
        console.log_in("root", "wrong", SOON),
        Err(ConsoleError::LoginRefused { .. })
    ));
}

#[test]
fn what_arrives_is_shown_unchanged() {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let mut console = Console::over(
        &b"\x1b[1mbold\x1b[0m\r\n"[..],
        std::io::sink(),
        vec![Box::new(writer)],
    );
    console.wait_for_end(SOON).expect("ended");
    drop(console);
    assert_eq!(
        std::io::read_to_string(reader).expect("read"),
        "\x1b[1mbold\x1b[0m\r\n"
    );
}
