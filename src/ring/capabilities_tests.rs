use super::*;

fn modern() -> Facts {
    Facts {
        release: "6.18.44-example".into(),
        setup: 0,
        register: 0,
        enter: 0,
        buffer_ring: 0,
        base_features: true,
        missing_operation: None,
        no_sqarray: true,
        ring_fd: true,
        sync_msg_ring: true,
        no_iowait: true,
        disabled: 0,
        memlock: 8 << 20,
        nofile: 1024,
    }
}

fn refused(change: impl FnOnce(&mut Facts)) -> SetupError {
    let mut facts = modern();
    change(&mut facts);
    Capabilities::decide(&facts).unwrap_err()
}

#[test]
fn a_modern_kernel_has_everything_and_says_so_in_one_line() {
    let capabilities = Capabilities::decide(&modern()).unwrap();
    assert!(Feature::ALL.iter().all(|feature| capabilities.has(*feature)));
    assert_eq!(capabilities.release(), "6.18.44-example");
    let line = capabilities.to_string();
    assert!(!line.contains(" no ") && !line.contains('\n'), "{line}");
}

#[test]
fn each_optional_feature_steps_down_alone_and_by_name() {
    for missing in Feature::ALL {
        let mut facts = modern();
        match missing {
            Feature::NoSqArray => facts.no_sqarray = false,
            Feature::RegisteredRingFd => facts.ring_fd = false,
            Feature::SyncMsgRing => facts.sync_msg_ring = false,
            Feature::NoIowait => facts.no_iowait = false,
        }
        let capabilities = Capabilities::decide(&facts).unwrap();
        for feature in Feature::ALL {
            assert_eq!(capabilities.has(feature), feature != missing);
        }
        let line = capabilities.to_string();
        assert!(line.contains(&format!("no {missing:?} (Linux {}+)", missing.since())), "{line}");
        assert_eq!(capabilities, Capabilities::decide(&modern()).unwrap().without(missing));
    }
}

#[test]
fn eperm_is_the_sysctl_if_it_is_set_and_seccomp_if_not() {
    for value in [1, 2] {
        let error = refused(|facts| (facts.setup, facts.disabled) = (libc::EPERM, value));
        assert_eq!(error, SetupError::DisabledBySysctl { value });
        assert!(error.to_string().contains(&format!("kernel.io_uring_disabled={value}")), "{error}");
    }
    assert_eq!(refused(|facts| facts.register = libc::EPERM), SetupError::Seccomp);
    assert_eq!(refused(|facts| facts.enter = libc::EPERM), SetupError::Seccomp);
    let error = refused(|facts| facts.setup = libc::EPERM);
    assert_eq!(error, SetupError::Seccomp);
    assert!(error.to_string().contains("--security-opt seccomp"), "{error}");
}

#[test]
fn enosys_is_age_on_an_old_kernel_and_seccomp_on_a_new_one() {
    assert_eq!(refused(|facts| facts.setup = libc::ENOSYS), SetupError::Seccomp);
    for release in ["4.19.0", "5.15.0-91-generic", "6.0.19", "unknown"] {
        let error = refused(|facts| (facts.setup, facts.release) = (libc::ENOSYS, release.into()));
        assert!(matches!(&error, SetupError::KernelTooOld { release: told, .. } if told == release), "{error}");
    }
}

#[test]
fn missing_pieces_are_named() {
    let too_old = |error: SetupError, missing: &str| {
        assert!(matches!(error, SetupError::KernelTooOld { .. }));
        let text = error.to_string();
        assert!(text.contains(missing) && text.contains("6.1 or later"), "{text}");
    };
    too_old(refused(|facts| facts.setup = libc::EINVAL), "DEFER_TASKRUN");
    too_old(refused(|facts| facts.base_features = false), "NODROP");
    too_old(refused(|facts| facts.missing_operation = Some("the io_uring operation MSG_RING")), "MSG_RING");
    too_old(refused(|facts| facts.buffer_ring = libc::EINVAL), "provided-buffer rings");
}

#[test]
fn limits_are_told_with_their_value_and_remedy() {
    let changes: [fn(&mut Facts); 2] = [|facts| facts.setup = libc::ENOMEM, |facts| facts.buffer_ring = libc::ENOMEM];
    for change in changes {
        let error = refused(change);
        assert_eq!(error, SetupError::Memlock { limit: 8 << 20 });
        assert!(error.to_string().contains("8388608") && error.to_string().contains("LimitMEMLOCK"), "{error}");
    }
    for errno in [libc::EMFILE, libc::ENFILE] {
        let error = refused(|facts| facts.setup = errno);
        assert_eq!(error, SetupError::FileLimit { limit: 1024 });
        assert!(error.to_string().contains("1024") && error.to_string().contains("ulimit -n"), "{error}");
    }
}

#[test]
fn anything_else_keeps_its_number() {
    let error = refused(|facts| facts.setup = libc::EFAULT);
    assert_eq!(error, SetupError::Os { call: "io_uring_setup", errno: libc::EFAULT });
    assert!(error.to_string().contains("os error 14"), "{error}");
}

#[test]
fn releases_compare_by_number() {
    assert!(at_least("6.1.0", 6, 1) && at_least("6.18.44", 6, 1) && at_least("7.0-rc1", 6, 1));
    assert!(!at_least("6.0.12", 6, 1) && !at_least("5.19", 6, 1) && !at_least("", 6, 1));
}
