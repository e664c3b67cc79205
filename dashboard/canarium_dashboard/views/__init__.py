"""What pages show, from statuses, Events and what was watched. Pure: nothing here does IO or asks for the time."""
