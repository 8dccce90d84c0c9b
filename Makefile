# Two commands for people: `make run` (the demonstration) and `make test` (every test this machine can
# run). Everything else is meson: `meson setup build && ninja -C build`.
BUILD ?= build

.PHONY: all build run test benchmark clean

all: build

build:
	conf/setup/packages.sh build
	test -f $(BUILD)/build.ninja || meson setup $(BUILD)
	ninja -C $(BUILD)

run:
	conf/setup/packages.sh build demo
	test -f $(BUILD)/build.ninja || meson setup $(BUILD)
	ninja -C $(BUILD)
	app/demo/demo.sh $(BUILD)

test:
	conf/setup/packages.sh build demo test
	test/run.sh $(BUILD)

benchmark:
	conf/setup/packages.sh build demo test benchmark
	test -f $(BUILD)/build.ninja || meson setup $(BUILD)
	ninja -C $(BUILD)
	meson test -C $(BUILD) --benchmark --verbose

clean:
	rm -rf $(BUILD) $(BUILD)-*
