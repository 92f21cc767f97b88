# The interface of the capnp-rpc echo. src/systems/capnp_rpc/echo_capnp.rs is made from it; README.md says how.
@0xb6b1f6d6f2a1c3e5;

struct Message {
  payload @0 :Data;
}

interface Echo {
  echo @0 Message -> Message;
}
