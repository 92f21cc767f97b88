//! Tests of the frame format.

use super::*;

fn request(head: RequestHead<'_>, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; 3];
    let mut draft = Draft::request(&mut out, &head);
    draft.payload().extend_from_slice(payload);
    draft.finish(1024).unwrap();
    out.split_off(3)
}

#[test]
fn requests_survive_the_trip() {
    for target in [Target::Id(EndpointId::new(77, 3)), Target::Name("bank"), Target::Name("")] {
        for route in [Route::Here, Route::Core(3), Route::Key(65535)] {
            for deadline_us in [None, Some(0), Some(u32::MAX)] {
                for id in [0, 1, u64::MAX] {
                    let head = RequestHead { request: id, target, route, message: MessageId(5), deadline_us };
                    let bytes = request(head, b"payload");
                    let length = frame_length(&bytes, 1024).unwrap();
                    assert_eq!(length, Some(bytes.len()));
                    assert_eq!(Frame::parse(&bytes).unwrap(), Frame::Request { head, payload: b"payload" });
                }
            }
        }
    }
}

#[test]
fn answers_survive_the_trip() {
    for resolved in [
        None,
        Some(Resolved { endpoint: EndpointId::new(1, 2), core: None }),
        Some(Resolved { endpoint: EndpointId::new(1, 2), core: Some(9) }),
    ] {
        let mut out = Vec::new();
        let mut draft = Draft::reply(&mut out, 8, resolved);
        draft.payload().push(42);
        draft.finish(100).unwrap();
        assert_eq!(Frame::parse(&out).unwrap(), Frame::Reply { request: 8, resolved, payload: &[42] });

        for typed in [
            None,
            Some(Typed { id: 0xfeed, bytes: &[1u8, 2, 3][..], way_back: false, told: Told::Unknown, alias: None }),
            Some(Typed { id: 0, bytes: &[], way_back: false, told: Told::Unknown, alias: None }),
        ] {
            let mut out = Vec::new();
            let failure = Failure { code: FailureCode::Handler, text: "no", typed };
            write_failure(&mut out, 8, resolved, &failure);
            assert_eq!(Frame::parse(&out).unwrap(), Frame::Failure { request: 8, resolved, failure });
        }
    }
    for target in [Target::Id(EndpointId(7)), Target::Name("bank")] {
        let mut out = Vec::new();
        write_cancel(&mut out, 11, target, Route::Core(2));
        assert_eq!(Frame::parse(&out).unwrap(), Frame::Cancel { request: 11, target, route: Route::Core(2) });
    }
}

#[test]
fn a_failure_fits_the_smallest_limit_whatever_its_text() {
    for text in ["ü".repeat(5000), "x".repeat(4095), String::new()] {
        for resolved in [None, Some(Resolved { endpoint: EndpointId(1), core: None })] {
            for size in [None, Some(0), Some(MAX_TYPED)] {
                let bytes = vec![9; size.unwrap_or(0)];
                let typed =
                    size.map(|_| Typed { id: 5, bytes: &bytes[..], way_back: false, told: Told::Unknown, alias: None });
                let mut out = vec![7; 9];
                write_failure(&mut out, 8, resolved, &Failure { code: FailureCode::Handler, text: &text, typed });
                assert!(out.len() - 9 <= MAX_FAILURE);
                let Ok(Frame::Failure { failure, .. }) = Frame::parse(&out[9..]) else { panic!() };
                assert!(text.starts_with(failure.text) && failure.typed == typed);
            }
        }
    }
}

#[test]
fn what_is_no_typed_error_behind_the_text_of_a_failure_is_ignored() {
    let mut frame = Vec::new();
    write_failure(&mut frame, 8, None, &Failure::new(FailureCode::Handler, "text"));
    for junk in [&[1][..], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 1, 0], &[0xff; 40]] {
        let mut frame = [&frame[..], junk].concat();
        set_length(&mut frame, 0);
        let failure = Failure::new(FailureCode::Handler, "text");
        assert_eq!(Frame::parse(&frame), Ok(Frame::Failure { request: 8, resolved: None, failure }));
    }
}

#[test]
fn small_frames_and_a_new_deadline_survive_the_trip() {
    let mut out = Vec::new();
    write_gone(&mut out, EndpointId(7));
    assert_eq!(Frame::parse(&out).unwrap(), Frame::Gone { endpoint: EndpointId(7) });
    for (write, frame) in [(write_ping as fn(&mut Vec<u8>), Frame::Ping), (write_pong, Frame::Pong)] {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!((frame_length(&out, 16), Frame::parse(&out)), (Ok(Some(16)), Ok(frame)));
    }
    let head = RequestHead {
        request: 1,
        target: Target::Name("bank"),
        route: Route::Here,
        message: MessageId(1),
        deadline_us: Some(9),
    };
    let mut with = request(head, b"payload");
    set_deadline(&mut with, 5);
    assert_eq!(with, request(RequestHead { deadline_us: Some(5), ..head }, b"payload"));
    let mut without = request(RequestHead { deadline_us: None, ..head }, b"payload");
    let before = without.clone();
    set_deadline(&mut without, 5);
    assert_eq!(without, before);
}

#[test]
fn headers_have_the_promised_sizes() {
    let head = RequestHead {
        request: 1,
        target: Target::Id(EndpointId(1)),
        route: Route::Here,
        message: MessageId(1),
        deadline_us: None,
    };
    assert_eq!(request(head, b"").len(), 28);
    let mut out = Vec::new();
    Draft::reply(&mut out, 1, None).finish(16).unwrap();
    assert_eq!(out.len(), 16);
}

#[test]
fn every_cut_and_every_flipped_byte_is_an_error_or_another_frame_but_no_panic() {
    let head = RequestHead {
        request: 1,
        target: Target::Name("bank"),
        route: Route::Key(3),
        message: MessageId(1),
        deadline_us: Some(9),
    };
    let whole = request(head, b"payload");
    let mut failure = Vec::new();
    let resolved = Some(Resolved { endpoint: EndpointId(1), core: None });
    let typed = Some(Typed { id: 5, bytes: &[6u8; 7][..], way_back: false, told: Told::Unknown, alias: None });
    write_failure(&mut failure, 8, resolved, &Failure { code: FailureCode::Handler, text: "text", typed });
    for frame in [whole, failure] {
        for cut in 0..frame.len() {
            let _ = Frame::parse(&frame[..cut]);
            for value in 0..=255 {
                let mut frame = frame.clone();
                frame[cut] = value;
                let _ = Frame::parse(&frame);
            }
        }
    }
}

#[test]
fn lengths_are_checked_before_anything_else() {
    assert_eq!(frame_length(&[1, 2, 3], 100), Ok(None));
    assert_eq!(frame_length(&[0; 4], 100), Err(FrameError::TooShort(0)));
    assert_eq!(frame_length(&[101, 0, 0, 0], 100), Err(FrameError::TooLong { length: 101, limit: 100 }));
    assert!(matches!(frame_length(&[255; 4], 100), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_frame_above_the_limit_is_cut_off_again() {
    let mut out = vec![1, 2, 3];
    let mut draft = Draft::reply(&mut out, 1, None);
    draft.payload().extend_from_slice(&[0; 100]);
    assert_eq!(draft.finish(115), Err(FrameTooLarge { length: 116, limit: 115 }));
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn unknown_kinds_are_skipped_only_where_they_say_so() {
    let mut frame = vec![0; 16];
    frame[0] = 16;
    frame[4] = 200;
    assert_eq!(Frame::parse(&frame), Ok(Frame::Skipped));
    frame[4] = 100;
    assert_eq!(Frame::parse(&frame), Err(FrameError::UnknownKind(100)));
    frame[4] = KIND_REPLY;
    frame[5] = 64;
    assert_eq!(Frame::parse(&frame), Err(FrameError::UnknownFlags(64)));
}

#[test]
fn keys_spread_over_all_cores() {
    for cores in [1u16, 2, 3, 7, 128] {
        let mut seen = vec![0u32; cores as usize];
        (0..=u16::MAX).for_each(|key| seen[core_of_key(key, cores) as usize] += 1);
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(most - least <= 1, "{cores} cores: {least}..{most}");
    }
}
