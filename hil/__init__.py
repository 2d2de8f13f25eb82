"""Hardware in the loop: emulated racks that speak real protocols, a demo and chaos on them.

    room            which racks and caps there are, and the site file that says so    pure
    plant, breaker  what is drawn, and for how long the feed bears it                 pure
    judge           what the plant saw, in a few numbers                              pure
    modbus_device, snmp_device, devices     real servers on loopback
    mosquitto, mqtt_server                  the MQTT server, installed or embedded
    rack            a controller as a process
    wiretap         what an outside observer hears over MQTT
    scenario        the demo: all of these together, and what happens when
    table, report   what is shown while it runs, and what is left of it
    faults          chaos: what goes wrong, and when, drawn from a seed               pure
    proxy, ward     what can be made to fail, and the hands that do it
    chaos, chaos_watch      the run: the plan is carried out, and looked at
    chaos_judge     which bounds were broken                                          pure
    chaos_report, chaos_command     what is left of it; its options and exit codes

Nothing here imports the product. An emulator that was built from the product's own
profiles would prove nothing, and a judge that believed its reports even less.
"""
